"""A whole run as one page, as Markdown and as JSON. `latency` and `parity` render those two alone, as text as well."""

from sesurgery.reports.pages.run import to_html, to_json, to_markdown, to_text

__all__ = ["to_html", "to_json", "to_markdown", "to_text"]
