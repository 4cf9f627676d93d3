// Move the example of an optional parameter into its description: Swagger UI would send the example by default, and the
// service rejects an invented `If-Match`.
const inWords = (parameter, schemas) => {
  if (parameter.required || !parameter.schema) return parameter;
  const { example, description = "", ...rest } = parameter;
  const { example: _, ...schema } = schemas?.[rest.schema.$ref?.split("/").pop()] ?? rest.schema;
  const words = example === undefined ? "" : ` Example: \`${example}\`.`;
  return { ...rest, schema, description: description.trim() + words };
};

const mapValues = (object, map) =>
  Object.fromEntries(Object.entries(object ?? {}).map(([name, value]) => [name, map(value, name)]));

// The URL of the service that delivers this page, with the prefix that a proxy adds.
const service = new URL(".", location).href.slice(0, -1) + document.getElementById("swagger-ui").dataset.basePath;

const prepared = (contract) => {
  const { securitySchemes, ...components } = contract.components ?? {};
  const change = (parameter) => inWords(parameter, components.schemas);
  components.parameters = mapValues(components.parameters, change);
  const paths = mapValues(contract.paths, (item) =>
    mapValues(item, (node, name) => {
      if (name === "parameters") return node.map(change);
      return node?.parameters ? { ...node, parameters: node.parameters.map(change) } : node;
    }),
  );
  // Hide the Authorize button if the service requires no API key.
  const operations = Object.values(paths).flatMap((item) => Object.values(item));
  const isProtected = [contract, ...operations].some((part) => part?.security?.length);
  const servers = [{ url: service }];
  return { ...contract, servers, paths, components: isProtected ? { ...components, securitySchemes } : components };
};

const Preparation = () => ({
  statePlugins: { spec: { wrapActions: { updateJsonSpec: (update) => (contract) => update(prepared(contract)) } } },
});

// Collapse each error response into one line until it is clicked, since every operation has about a dozen.
const FoldedRefusals = () => ({
  wrapComponents: {
    response:
      (Response, { React }) =>
      (properties) => {
        const { code, response } = properties;
        const [folded, fold] = React.useState(code >= "400");
        if (!folded) return React.createElement(Response, properties);
        const button = React.createElement(
          "button",
          { className: "unfold", type: "button", "aria-expanded": false, onClick: () => fold(false) },
          (response.get("description") ?? "").trim().replaceAll("`", ""),
        );
        return React.createElement(
          "tr",
          { className: "response" },
          React.createElement("td", { className: "response-col_status" }, code),
          React.createElement("td", { className: "response-col_description", colSpan: 2 }, button),
        );
      },
  },
});

SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  plugins: [Preparation, FoldedRefusals],
  deepLinking: true,
  defaultModelsExpandDepth: 0,
  displayRequestDuration: true,
  persistAuthorization: false,
  tryItOutEnabled: true,
});

const dark = matchMedia("(prefers-color-scheme: dark)");
const follow = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
dark.addEventListener("change", follow);
follow();
