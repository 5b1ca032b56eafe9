"""The local web page: paint a label map, drop photos, see the picture and what feeds it.

`service` answers without knowing of the web, `requests` checks what comes in, `server` is the web
application, and `page` holds what the browser gets. `server` alone needs the extra `studio`.
"""
