"""From a Model to answers: an index of photographs, search in it, a map, a service, export."""
