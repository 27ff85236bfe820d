"""What a verb tells: one file for each result, as text for the terminal and where asked as Markdown or JSON."""
