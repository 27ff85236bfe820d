"""What is written as a page: a run, several runs, a study. HTML with its Markdown and JSON."""
