"""The one error whose message is meant for the person at the keyboard."""


class UserError(Exception):
    """Wrong input: the message says in one line what is wrong and what to do.

    The command line prints it as ``mscaflax: error: MESSAGE`` and exits with status 2.
    """
