// Shows the OpenAPI description of this server, and sends requests to it. Texts get into the page as texts only.

const METHODS = ["get", "post", "put", "patch", "delete"];
const KEY = "nexus-api-key";
const find = (id) => document.getElementById(id);
const address = (path) => new URL(path, document.baseURI).href;

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

function credential() {
  const key = sessionStorage.getItem(KEY);
  return key ? { authorization: `Bearer ${key}` } : {};
}

let api = null;

function resolved(node) {
  while (node && node.$ref) {
    node = node.$ref.slice(2).split("/").reduce((at, step) => at[step.replaceAll("~1", "/").replaceAll("~0", "~")], api);
  }
  return node ?? {};
}

function operations() {
  const found = [];
  for (const [path, item] of Object.entries(api.paths)) {
    for (const method of METHODS) {
      const operation = item[method];
      if (!operation) continue;
      const parameters = [...(item.parameters ?? []), ...(operation.parameters ?? [])].map(resolved);
      found.push({ ...operation, path, method, parameters, tag: operation.tags?.[0] ?? "" });
    }
  }
  return found;
}

function list(known) {
  const wanted = find("search").value.trim().toLowerCase();
  const current = decodeURIComponent(location.hash.slice(1));
  const groups = new Map();
  for (const one of known) {
    const text = `${one.method} ${one.path} ${one.summary ?? ""} ${one.operationId}`.toLowerCase();
    if (wanted && !text.includes(wanted)) continue;
    if (!groups.has(one.tag)) groups.set(one.tag, []);
    groups.get(one.tag).push(one);
  }
  const order = (api.tags ?? []).map((tag) => tag.name);
  const tags = [...groups.keys()].sort((a, b) => order.indexOf(a) - order.indexOf(b));
  find("list").replaceChildren(
    ...tags.flatMap((tag) => [
      element("h2", {}, tag),
      ...groups.get(tag).map((one) =>
        element(
          "a",
          { href: `#${encodeURIComponent(one.operationId)}`, "aria-current": one.operationId === current && "page" },
          element("span", { class: `method ${one.method}` }, one.method.toUpperCase()),
          element("span", {}, one.summary ?? one.path),
        ),
      ),
    ]),
    ...(tags.length ? [] : [element("p", { class: "quiet" }, "No operation matches.")]),
  );
}

function kindOf(schema) {
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" | ");
  if (schema.type === "array") return `${schema.items ? kindOf(resolved(schema.items)) : "anything"}, several`;
  if (schema.anyOf) return [...new Set(schema.anyOf.map((one) => kindOf(resolved(one))))].join(" or ");
  const kind = Array.isArray(schema.type) ? schema.type.join(" or ") : (schema.type ?? "anything");
  return schema.format ? `${kind}, ${schema.format}` : kind;
}

function limits(schema) {
  const named = { minimum: "at least", maximum: "at most", maxLength: "characters at most", default: "default" };
  return Object.entries(named)
    .filter(([key]) => schema[key] !== undefined && schema[key] !== null && Math.abs(schema[key]) !== 2 ** 63)
    .map(([key, words]) => `${words} ${JSON.stringify(schema[key])}`)
    .join(", ");
}

function schemaTree(reference, name = "", required = false) {
  const schema = resolved(reference);
  const label = [name && element("code", {}, name + (required ? "" : "?")), " ",
    element("span", { class: "quiet" }, [kindOf(schema), limits(schema)].filter(Boolean).join("; ")),
    schema.description ? ` ${schema.description}` : ""].filter(Boolean);
  const inside = schema.type === "array" && schema.items ? resolved(schema.items) : schema;
  const members = Object.entries(inside.properties ?? {});
  const choices = (inside.anyOf ?? inside.oneOf ?? []).filter((one) => one.$ref || one.properties || one.items);
  if (!members.length && !choices.length) return element("div", {}, ...label);
  const box = element("details", { open: !name && members.length < 30 }, element("summary", {}, ...label));
  const fill = () => {
    if (box.open && box.childElementCount === 1) {
      box.append(...members.map(([key, one]) => schemaTree(one, key, inside.required?.includes(key))),
        ...choices.map((one) => schemaTree(one, "either", true)));
    }
  };
  box.addEventListener("toggle", fill);
  fill();
  return box;
}

function exampleOf(content) {
  const media = content?.["application/json"];
  return media?.example === undefined ? "" : JSON.stringify(media.example, null, 2);
}

function parameterRow(parameter) {
  const schema = resolved(parameter.schema ?? parameter.content?.["application/json"]?.schema);
  const isJson = Boolean(parameter.content);
  const input = element("input", {
    name: parameter.name, "data-in": parameter.in, autocomplete: "off", "aria-label": parameter.name,
    placeholder: isJson ? "JSON" : kindOf(schema).slice(0, 60),
    value: parameter.in === "path" ? (parameter.example ?? "") : null,
  });
  const about = [parameter.description, limits(schema)].filter(Boolean).join("; ");
  return element("tr", {},
    element("td", {}, element("code", {}, parameter.name), parameter.required ? " *" : ""),
    element("td", {}, input, element("div", { class: "quiet" }, about)));
}

function requestOf(operation, form) {
  let path = operation.path;
  const query = new URLSearchParams();
  for (const input of form.querySelectorAll("input[data-in]")) {
    if (input.dataset.in === "path") path = path.replace(`{${input.name}}`, encodeURIComponent(input.value));
    else if (input.value !== "") query.append(input.name, input.value);
  }
  const base = (api.servers?.[0]?.url ?? "").replace(/\/$/, "");
  const url = base + path + (query.size ? `?${query}` : "");
  const options = { method: operation.method.toUpperCase(), headers: { accept: "application/json", ...credential() } };
  const body = form.querySelector("textarea");
  if (body && body.value.trim()) {
    options.body = body.value;
    options.headers["content-type"] = "application/json";
  }
  return [url, options];
}

function curl(url, options) {
  const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;
  const words = ["curl", quoted(address(url))];
  if (options.method !== "GET") words.push("-X", options.method);
  if (options.headers.authorization) words.push("-H", '"Authorization: Bearer $NEXUS_API_KEY"');
  if (options.body) words.push("-H", quoted("content-type: application/json"), "-d", quoted(options.body));
  return words.join(" ");
}

async function send(operation, form, output) {
  const button = form.querySelector("button");
  const [url, options] = requestOf(operation, form);
  button.disabled = true;
  output.replaceChildren(element("pre", {}, curl(url, options)));
  try {
    const began = performance.now();
    const response = await fetch(url, options);
    const text = await response.text();
    const took = Math.round(performance.now() - began);
    const headers = ["location", "link", "allow", "retry-after"].filter((name) => response.headers.has(name));
    let shown = text;
    try { shown = JSON.stringify(JSON.parse(text), null, 2); } catch { /* no JSON: as it is */ }
    output.append(
      element("p", {}, element("strong", {}, `${response.status} ${response.statusText}`), ` in ${took} ms`),
      ...headers.map((name) => element("div", { class: "quiet" }, `${name}: ${response.headers.get(name)}`)),
      element("pre", {}, shown.slice(0, 200000) || "(no body)"));
  } catch (failure) {
    output.append(element("p", {}, `No answer: ${failure.message}`));
  } finally {
    button.disabled = false;
  }
}

function show(operation) {
  const output = element("div", { "aria-live": "polite" });
  const content = operation.requestBody?.content;
  const form = element("form", { onsubmit: (event) => { event.preventDefault(); send(operation, form, output); } },
    operation.parameters.length ? element("table", {}, ...operation.parameters.map(parameterRow)) : null,
    content ? element("label", {}, "Body", element("textarea", { spellcheck: "false" }, exampleOf(content))) : null,
    element("p", {}, element("button", {}, "Send")));
  const body = content?.["application/json"]?.schema;
  find("main").replaceChildren(
    element("h2", { class: "operation" }, operation.summary ?? operation.operationId),
    element("p", {}, element("span", { class: `method ${operation.method}` }, operation.method.toUpperCase()), " ",
      element("span", { class: "path" }, operation.path)),
    element("p", {}, operation.description ?? ""),
    element("h3", {}, "Try it"), form, output,
    ...(body ? [element("h3", {}, "What the body holds"), schemaTree(body)] : []),
    element("h3", {}, "Answers"),
    ...Object.entries(operation.responses).map(([status, reference]) => {
      const response = resolved(reference);
      const schema = Object.values(response.content ?? {})[0]?.schema;
      return element("div", {}, element("strong", {}, status), ` ${response.description} `,
        schema && !reference.$ref ? schemaTree(schema) : null);
    }));
}

function overview() {
  const paragraphs = (api.info.description ?? "").split("\n\n").map((text) => element("p", {}, text));
  find("main").replaceChildren(
    element("h2", { class: "operation" }, api.info.title), ...paragraphs,
    element("p", {}, element("a", { href: "openapi.json" }, "openapi.json"), ` (OpenAPI ${api.openapi})`));
}

function askForKey(text) {
  const input = element("input", { type: "password", autocomplete: "off", "aria-label": "API key" });
  const form = element("form", { onsubmit: (event) => {
    event.preventDefault();
    sessionStorage.setItem(KEY, input.value.trim());
    start();
  } }, element("p", {}, text), input, element("p", {}, element("button", {}, "Use this key")));
  find("main").replaceChildren(form);
  input.focus();
}

async function start() {
  let response;
  try {
    response = await fetch(address("openapi.json"), { headers: credential() });
  } catch (failure) {
    find("main").replaceChildren(element("p", {}, `The description cannot be had: ${failure.message}`));
    return;
  }
  if (response.status === 401) {
    askForKey(sessionStorage.getItem(KEY) ? "This key is not recognised." : "This server asks for an API key.");
    return;
  }
  api = await response.json();
  document.title = api.info.title;
  find("title").textContent = api.info.title;
  const known = operations();
  const route = () => {
    const wanted = decodeURIComponent(location.hash.slice(1));
    const found = known.find((one) => one.operationId === wanted);
    if (found) show(found); else overview();
    list(known);
    find("main").focus({ preventScroll: true });
  };
  window.onhashchange = route;
  find("search").oninput = () => list(known);
  route();
}

start();
