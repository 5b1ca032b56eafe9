"""Numbers in cells of Markdown tables."""


def pick(numbers, path):
    """The value at `path`, or None; a mean with its interval stays a dict."""
    for key in path:
        if not isinstance(numbers, dict) or numbers.get(key) is None:
            return None
        numbers = numbers[key]
    return numbers


def cell(value, form):
    if value is None:
        return "–"
    if not isinstance(value, dict):
        return f"{value:{form}}"
    if value["low"] is None:
        return f"{value['mean']:{form}}"
    # Where there are signs a dash would pass for one.
    to = " to " if form.startswith("+") else "–"
    return f"{value['mean']:{form}} ({value['low']:{form}}{to}{value['high']:{form}})"


def markdown(titles, rows):
    rule = "| --- |" + " ---: |" * (len(titles) - 1)
    return ["", "| " + " | ".join(titles) + " |", rule, *("| " + " | ".join(row) + " |" for row in rows), ""]
