//! Schemas as programs have them.

use serde_json::{Value, json};

pub(crate) fn schemas() -> Vec<Value> {
    vec![
        json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": "Invoice",
            "type": "object",
            "properties": {
                "number": {"type": "string", "pattern": "^INV-[0-9]{4}-[0-9]{3}$"},
                "issued": {"type": "string", "format": "date"},
                "currency": {"enum": ["EUR", "CHF", "USD"]},
                "lines": {
                    "type": "array",
                    "minItems": 1,
                    "maxItems": 3,
                    "items": {
                        "type": "object",
                        "properties": {
                            "item": {"type": "string", "maxLength": 20},
                            "quantity": {"type": "integer", "minimum": 1, "maximum": 100},
                            "price": {"type": "number", "minimum": 0, "maximum": 1000, "multipleOf": 0.01},
                        },
                        "required": ["item", "quantity", "price"],
                        "additionalProperties": false,
                    },
                },
            },
            "required": ["number", "issued", "currency", "lines"],
            "additionalProperties": false,
        }),
        json!({
            "$schema": "http://json-schema.org/draft-07/schema#",
            "title": "Package",
            "type": "object",
            "properties": {
                "name": {"type": "string", "pattern": "^[a-z][a-z0-9-]{0,20}$"},
                "version": {"type": "string", "pattern": "^[0-9]{1,2}\\.[0-9]{1,2}\\.[0-9]{1,2}$"},
                "private": {"type": "boolean", "default": false},
                "dependencies": {
                    "type": "object",
                    "maxProperties": 3,
                    "patternProperties": {"^[a-z]{2,12}$": {"type": "string", "pattern": "^\\^[0-9]\\.[0-9]$"}},
                    "additionalProperties": false,
                },
            },
            "required": ["name", "version"],
            "additionalProperties": false,
        }),
        json!({
            "title": "GeoJSON geometry",
            "oneOf": [
                {
                    "type": "object",
                    "properties": {"type": {"const": "Point"}, "coordinates": {"$ref": "#/$defs/position"}},
                    "required": ["type", "coordinates"],
                    "additionalProperties": false,
                },
                {
                    "type": "object",
                    "properties": {
                        "type": {"const": "LineString"},
                        "coordinates":
                            {"type": "array", "items": {"$ref": "#/$defs/position"}, "minItems": 2, "maxItems": 4},
                    },
                    "required": ["type", "coordinates"],
                    "additionalProperties": false,
                },
            ],
            "$defs": {
                "position": {
                    "type": "array",
                    "prefixItems": [
                        {"type": "number", "minimum": -180, "maximum": 180},
                        {"type": "number", "minimum": -90, "maximum": 90},
                    ],
                    "items": false,
                    "minItems": 2,
                },
            },
        }),
        json!({
            "title": "Person",
            "type": "object",
            "properties": {
                "name": {"type": "string", "minLength": 2, "maxLength": 30},
                "email": {"type": "string", "format": "email"},
                "age": {"type": ["integer", "null"], "minimum": 0, "maximum": 130},
                "address": {"anyOf": [{"$ref": "#/definitions/address"}, {"type": "null"}]},
            },
            "required": ["name", "email", "age", "address"],
            "definitions": {
                "address": {
                    "type": "object",
                    "properties": {
                        "street": {"type": "string", "maxLength": 25},
                        "postcode": {"type": "string", "pattern": "^[0-9]{4,5}$"},
                        "country": {"type": "string", "enum": ["Österreich", "Schweiz", "Deutschland"]},
                    },
                    "required": ["street", "postcode", "country"],
                    "additionalProperties": false,
                },
            },
            "additionalProperties": false,
        }),
        json!({
            "title": "Log record",
            "type": "object",
            "properties": {
                "at": {"type": "string", "format": "date-time"},
                "level": {"enum": ["debug", "info", "warn", "error"]},
                "request": {"type": "string", "format": "uuid"},
                "peer": {"anyOf": [
                    {"type": "string", "format": "ipv4"},
                    {"type": "string", "format": "ipv6"},
                    {"type": "string", "format": "hostname", "maxLength": 20},
                ]},
                "message": {"type": "string", "maxLength": 60},
                "took": {"type": "string", "format": "duration"},
            },
            "required": ["at", "level", "message"],
            "additionalProperties": false,
        }),
        json!({
            "title": "Menu",
            "type": "object",
            "properties": {
                "label": {"type": "string", "maxLength": 12},
                "items": {"type": "array", "items": {"$ref": "#"}, "maxItems": 2},
            },
            "required": ["label"],
            "additionalProperties": false,
        }),
        json!({
            "title": "Expression",
            "$ref": "#/$defs/expression",
            "$defs": {
                "expression": {"anyOf": [{"type": "integer", "minimum": 0, "maximum": 9}, {"$ref": "#/$defs/sum"}]},
                "sum": {
                    "type": "object",
                    "properties": {
                        "op": {"enum": ["+", "-", "×"]},
                        "left": {"type": "integer", "minimum": 0, "maximum": 9},
                        "right": {"$ref": "#/$defs/expression"},
                    },
                    "required": ["op", "left", "right"],
                    "additionalProperties": false,
                },
            },
        }),
        json!({
            "title": "Answer of an API",
            "type": "object",
            "properties": {
                "ok": {"const": true},
                "page": {"type": "integer", "minimum": 1},
                "next": {"type": ["string", "null"], "format": "uri"},
                "results": {
                    "type": "array",
                    "maxItems": 2,
                    "items": {
                        "allOf": [
                            {"type": "object", "properties": {"id": {"type": "integer"}}, "required": ["id"]},
                            {"properties": {"score": {"type": "number", "minimum": 0, "maximum": 1}}},
                        ],
                    },
                },
            },
            "required": ["ok", "page", "results"],
            "additionalProperties": false,
        }),
        json!({
            "title": "Sentiment",
            "type": "object",
            "properties": {
                "sentiment": {"type": "string", "enum": ["positive", "negative", "neutral"]},
                "confidence": {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
                "reasons": {"type": "array", "items": {"type": "string", "maxLength": 40}, "maxItems": 3},
            },
            "required": ["sentiment", "confidence"],
            "additionalProperties": false,
        }),
        json!({
            "title": "Free form",
            "type": "object",
            "properties": {"title": {"type": "string"}, "body": {"type": "string"}},
            "required": ["title", "body"],
            "additionalProperties": false,
        }),
        json!({
            "title": "Matrix",
            "type": "array",
            "minItems": 2,
            "maxItems": 2,
            "items": {
                "type": "array",
                "minItems": 2,
                "maxItems": 2,
                "items": {"type": "number", "minimum": -1, "maximum": 1},
            },
        }),
        json!({
            "title": "Configuration",
            "type": "object",
            "properties": {
                "port": {"type": "integer", "minimum": 1, "maximum": 65535},
                "host": {"type": "string", "format": "hostname"},
                "labels": {"type": "object", "additionalProperties": {"type": "string", "maxLength": 8}, "maxProperties": 3},
                "retry": {
                    "oneOf": [
                        {"type": "boolean"},
                        {"type": "integer", "minimum": 1, "maximum": 9},
                        {"type": "string", "enum": ["always", "never"]},
                    ],
                },
            },
            "required": ["port", "retry"],
            "additionalProperties": false,
        }),
    ]
}
