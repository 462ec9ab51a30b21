//! Random JSON schemas over the keywords that constraints enforce.

use serde_json::{Map, Value, json};

const NAMES: [&str; 10] =
    ["name", "city", "age", "tags", "is_open", "price in €", "address", "notes", "größe", "a/b~c"];

/// Patterns whose matches are short.
const PATTERNS: [&str; 8] = [
    "^[A-Z]{2}[0-9]{3,5}$",
    "^#[0-9a-f]{6}$",
    "^(north|south|east|west)$",
    "^[a-z]{1,8}(-[a-z]{1,8}){0,2}$",
    "^v[0-9]{1,2}\\.[0-9]{1,2}(\\.[0-9]{1,2})?$",
    "^\\+[1-9][0-9]{6,12}$",
    "^[^\"\\\\\\n]{3,12}$",
    "^[äöüß]{2,4}$",
];

const FORMATS: [&str; 10] =
    ["date", "time", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri"];

/// A random number generator (SplitMix64) that draws schemas.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }

    fn of<'a>(&mut self, texts: &[&'a str]) -> &'a str {
        texts[self.below(texts.len() as u64) as usize]
    }

    /// A schema with definitions. Two in three are objects, as in use.
    pub(crate) fn schema(&mut self) -> Value {
        let mut schema = match self.below(3) {
            0 => self.any(2),
            _ => self.object(2),
        };
        let Some(fields) = schema.as_object_mut() else { return schema };
        let leaf = self.leaf();
        fields.insert(
            "$defs".to_owned(),
            json!({
                "leaf": leaf,
                "tree": {
                    "type": "object",
                    "properties": {
                        "value": {"type": "integer", "minimum": 0, "maximum": 99},
                        "children": {"type": "array", "items": {"$ref": "#/$defs/tree"}, "maxItems": 2},
                    },
                    "required": ["value"],
                    "additionalProperties": false,
                },
                "list": {
                    "anyOf": [
                        {"type": "null"},
                        {
                            "type": "object",
                            "properties": {"head": {"$ref": "#/$defs/leaf"}, "tail": {"$ref": "#/$defs/list"}},
                            "required": ["head", "tail"],
                            "additionalProperties": false,
                        },
                    ],
                },
            }),
        );
        schema
    }

    fn any(&mut self, depth: u32) -> Value {
        if depth == 0 {
            return self.leaf();
        }
        match self.below(12) {
            0..=3 => self.leaf(),
            4 | 5 => self.object(depth),
            6 => self.array(depth),
            7 => self.tuple(depth),
            8 => json!({"anyOf": [self.any(depth - 1), self.leaf()]}),
            9 => self.one_of(depth),
            10 => self.all_of(),
            _ => json!({"$ref": format!("#/$defs/{}", self.of(&["leaf", "leaf", "tree", "list"]))}),
        }
    }

    fn leaf(&mut self) -> Value {
        match self.below(13) {
            0 => json!({"type": "string", "maxLength": 4 + self.below(12)}),
            1 => {
                let min = 1 + self.below(5);
                json!({"type": "string", "minLength": min, "maxLength": min + self.below(10)})
            }
            2 => json!({"type": "string", "pattern": self.of(&PATTERNS)}),
            3 | 4 => json!({"type": "string", "format": self.of(&FORMATS)}),
            5 => json!({"type": "integer", "minimum": -5, "maximum": self.below(2000)}),
            6 => {
                json!({"type": "integer", "exclusiveMinimum": 0, "multipleOf": 1 + self.below(7), "maximum": 500})
            }
            7 => json!({"type": "number", "minimum": -1.5, "exclusiveMaximum": self.below(50)}),
            8 => json!({"type": "number", "minimum": 0, "maximum": 10, "multipleOf": 0.25}),
            9 => json!({"type": self.of(&["boolean", "null", "boolean"])}),
            10 => json!({"enum": ["red", "green", 3, null, "señor \"ñ\"", ["a", 1.5], {"k": "東京"}]}),
            11 => match self.below(3) {
                0 => json!({"const": {"kind": "naïve", "list": [1, true, null]}}),
                1 => json!({"const": "a \"quoted\"\nline\u{1f600}"}),
                _ => json!({"const": -17}),
            },
            _ => json!({"type": ["string", "null", "integer"], "maxLength": 8, "minimum": 1, "maximum": 12}),
        }
    }

    fn array(&mut self, depth: u32) -> Value {
        let min = self.below(3);
        json!({"type": "array", "items": self.any(depth - 1), "minItems": min, "maxItems": min + self.below(3)})
    }

    fn tuple(&mut self, depth: u32) -> Value {
        let items = [self.any(depth - 1), self.leaf()];
        json!({"type": "array", "prefixItems": items, "items": false, "minItems": self.below(3)})
    }

    fn object(&mut self, depth: u32) -> Value {
        let n = 1 + self.below(4) as usize;
        let first = self.below((NAMES.len() - n) as u64 + 1) as usize;
        let names = &NAMES[first..first + n];
        let properties: Map<_, _> =
            names.iter().map(|name| ((*name).to_owned(), self.any(depth - 1))).collect();
        let kind = self.below(8);
        // Numbers of properties are enforced where all names are required, and else refused.
        let required = if matches!(kind, 1..=3) { n } else { self.below(n as u64 + 1) as usize };
        let required = &names[..required];
        let mut object = json!({"type": "object", "properties": properties, "required": required});
        match kind {
            0 => object["additionalProperties"] = json!({"type": "integer", "minimum": 0, "maximum": 9}),
            1 => {
                object["patternProperties"] = json!({"^x_[a-z]{1,6}$": {"type": "boolean"}});
                object["additionalProperties"] = json!(false);
                object["maxProperties"] = json!(n + 1);
            }
            2 => object["maxProperties"] = json!(n),
            3 => {
                object["minProperties"] = json!(1);
                object["additionalProperties"] = json!(false);
            }
            _ => object["additionalProperties"] = json!(false),
        }
        object
    }

    /// Alternatives with a tag each.
    fn one_of(&mut self, depth: u32) -> Value {
        let mut option = |kind: &str, name: &str| {
            json!({
                "type": "object",
                "properties": {"kind": {"const": kind}, name: self.any(depth - 1)},
                "required": ["kind", name],
                "additionalProperties": false,
            })
        };
        json!({"oneOf": [option("circle", "radius"), option("square", "side"), option("line", "länge")]})
    }

    /// Parts of an object, merged.
    fn all_of(&mut self) -> Value {
        json!({
            "allOf": [
                {"type": "object", "properties": {"id": self.leaf()}, "required": ["id"]},
                {"properties": {"label": self.leaf()}, "required": ["label"], "maxProperties": 3},
            ],
        })
    }
}
