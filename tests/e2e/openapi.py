"""An OpenAPI document, as far as the server's own goes: what its schemas say of a value."""


class Document:
    KINDS = {"object": dict, "array": list, "string": str, "integer": int, "boolean": bool,
             "null": type(None), "number": (int, float)}

    def __init__(self, spec):
        self.paths, self.schemas = spec["paths"], spec["components"]["schemas"]

    def resolve(self, schema):
        while "$ref" in schema:
            schema = self.schemas[schema["$ref"].rsplit("/", 1)[1]]
        return schema

    def reply(self, route, method):
        """{content type: schema} of a good reply."""
        content = self.paths[route][method.lower()]["responses"]["200"]["content"]
        return {kind: of["schema"] for kind, of in content.items()}

    def problem(self, value, schema, where="$"):
        """Why the value is not of the schema, or None."""
        schema = self.resolve(schema)
        if "oneOf" in schema:
            found = [self.problem(value, s, where) for s in schema["oneOf"]]
            return None if None in found else "; ".join(found)
        kind = schema.get("type")
        if kind and (not isinstance(value, self.KINDS[kind]) or
                     isinstance(value, bool) != (kind == "boolean")):
            return f"{where} is no {kind}: {value!r:.80}"
        if "enum" in schema and value not in schema["enum"]:
            return f"{where}: {value!r:.80} is not one of {schema['enum']}"
        found = []
        if kind == "object":
            found = [f"{where}.{k} is missing" for k in schema.get("required", ())
                     if k not in value]
            found += [self.problem(v, schema.get("properties", {}).get(k, {}), f"{where}.{k}")
                      for k, v in value.items()]
        elif kind == "array":
            found = [self.problem(v, schema["items"], f"{where}[{i}]")
                     for i, v in enumerate(value)]
        return next((f for f in found if f), None)
