"""What the service says of itself: OpenAPI, Swagger UI, ReDoc."""
