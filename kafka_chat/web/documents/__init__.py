"""The service's API documents: OpenAPI, Swagger UI, ReDoc."""
