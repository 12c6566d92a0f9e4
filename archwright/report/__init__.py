"""What a search found, as one self-contained HTML file. `archwright.report.html.render` makes it."""
