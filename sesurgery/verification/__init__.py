"""Each module measures one thing on loaded engines and returns a frozen report; nothing here renders or decides."""
