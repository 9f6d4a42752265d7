//! The JSON Schema (draft 2020-12) of a configuration file, for editors.

use serde_json::{Map, Value as Json, json};

use super::{
    Root,
    shape::{Described, REQUIRED, Shape, Table},
    tree::{Node, Value},
};

/// The schema. It knows names, types, choices and defaults; what a string must look like is said in words.
pub fn json_schema() -> Json {
    let mut schema = table(Root::TABLE);
    schema["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    schema["title"] = json!("hardtack configuration");
    schema
}

fn table(table: &Table) -> Json {
    let property = |option: &Described| (option.name.to_owned(), described(option));
    let properties: Map<String, Json> = table.options.iter().map(property).collect();
    let required: Vec<_> = table
        .options
        .iter()
        .filter(|option| option.default == REQUIRED)
        .map(|option| option.name)
        .collect();
    json!({
        "type": "object",
        "description": words(table.doc.lines()),
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}

fn described(option: &Described) -> Json {
    let mut schema = shape(&(option.shape)());
    let mut doc = words(option.doc());
    if let Some(expected) = schema["description"]
        .as_str()
        .filter(|_| schema["type"] == "string")
    {
        doc = format!("{doc} Takes {expected}.");
    }
    schema["description"] = json!(doc);
    if let Some(default) = option.default_node() {
        schema["default"] = value(&default);
    }
    schema
}

fn shape(of: &Shape) -> Json {
    match of {
        Shape::Boolean => json!({ "type": "boolean" }),
        Shape::Integer { min, max } => {
            json!({ "type": "integer", "minimum": min, "maximum": max })
        }
        Shape::Text {
            expected,
            choices: [],
            ..
        } => json!({ "type": "string", "description": expected }),
        Shape::Text { choices, .. } => json!({ "enum": choices }),
        Shape::Path => json!({ "type": "string" }),
        Shape::List(item) => json!({ "type": "array", "items": shape(item) }),
        Shape::OneOrMany(item) => {
            let item = shape(item);
            json!({ "anyOf": [item, { "type": "array", "items": item, "minItems": 1 }] })
        }
        Shape::Table(inner) => table(inner),
        Shape::Named(inner) => {
            json!({ "type": "object", "additionalProperties": table(inner) })
        }
    }
}

fn value(node: &Node) -> Json {
    match &node.value {
        Value::Untyped(text) | Value::Text(text) => json!(text),
        Value::Integer(integer) => json!(i64::try_from(*integer).unwrap_or(i64::MAX)),
        Value::Boolean(boolean) => json!(boolean),
        Value::Array(items) => items.iter().map(value).collect(),
        Value::Table(entries) => {
            let pair = |entry: &super::tree::Entry| (entry.name.clone(), value(&entry.node));
            entries.iter().map(pair).collect::<Map<_, _>>().into()
        }
        Value::Other(kind) => json!(kind),
    }
}

fn words<'a>(lines: impl Iterator<Item = &'a str>) -> String {
    lines.map(str::trim).collect::<Vec<_>>().join(" ")
}
