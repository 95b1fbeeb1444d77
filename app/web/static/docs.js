// The requests of openapi.json as a table.
import { request } from "./api.js";

const made = (tag, ...inside) => {
  const element = document.createElement(tag);
  element.append(...inside);
  return element;
};

function takes(operation, schemas) {
  const named = (operation.parameters ?? []).map((one) => `${one.name}${one.schema?.enum ? `: ${one.schema.enum.join(" | ")}` : ""}`);
  const body = operation.requestBody?.content?.["application/json"]?.schema;
  const schema = schemas[body?.$ref?.split("/").pop()];
  if (schema) named.push(`{${Object.keys(schema.properties).join(", ")}}`);
  else if (body) named.push("{keys}");
  return named.join(", ");
}

const api = await request("GET", "/openapi.json");
const rows = Object.entries(api.paths).flatMap(([path, methods]) =>
  Object.entries(methods).map(([method, operation]) => made(
    "tr",
    made("td", made("code", `${method.toUpperCase()} ${path}`)),
    made("td", operation.description ?? operation.summary),
    made("td", made("code", takes(operation, api.components?.schemas ?? {}))),
  )));
document.getElementById("requests").append(...rows);
