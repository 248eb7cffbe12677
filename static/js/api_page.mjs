// Swagger UI, from this server alone: its own script is loaded before this one, and nothing is checked elsewhere.
const place = document.getElementById("api");

window.SwaggerUIBundle({
  url: place.dataset.url,
  domNode: place,
  validatorUrl: null,
  deepLinking: false,
  docExpansion: "list",
  defaultModelsExpandDepth: -1,
  persistAuthorization: false,
});
