"""Imported before nbformat, this spares it a grammar of web addresses: it takes seconds to build, and notebooks have
no field that it would check. papermill and nbval import nbformat.
"""

import sys

sys.modules.setdefault("rfc3987_syntax", None)
