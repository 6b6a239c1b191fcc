"""Writes openapi.json as C: embed_openapi.py IN OUT"""
import json
import sys

with open(sys.argv[1], encoding="utf-8") as f:
    text = json.dumps(json.load(f), separators=(",", ":")).encode()
with open(sys.argv[2], "w", encoding="ascii") as f:
    f.write('#include "serve/openapi.h"\n\nconst char pal__openapi[] = {')
    f.write(",".join(str(b) for b in text))
    f.write("};\nconst size_t pal__openapi_size = sizeof pal__openapi;\n")
