//! The part of JSON Schema (draft 2020-12) that `schema/report-v1.json` uses. A keyword it does not know fails, so
//! that the schema cannot grow past its checker.

use serde_json::Value;

/// What in `value` does not fit `schema`; `root` is the document that `$ref` points into.
pub fn faults(root: &Value, schema: &Value, value: &Value, at: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (keyword, rule) in schema.as_object().expect("a schema is an object") {
        match keyword.as_str() {
            "$schema" | "title" | "description" | "$defs" => {}
            "$ref" => {
                let pointer = rule.as_str().unwrap().strip_prefix('#').unwrap();
                let target = root
                    .pointer(pointer)
                    .expect("the reference leads somewhere");
                found.extend(faults(root, target, value, at));
            }
            "const" if rule != value => found.push(format!("{at}: {value} is not {rule}")),
            "enum" if !rule.as_array().unwrap().contains(value) => {
                found.push(format!("{at}: {value} is none of {rule}"));
            }
            "const" | "enum" => {}
            "type" if !is_of_type(rule, value) => {
                found.push(format!("{at}: {value} is no {rule}"));
            }
            "type" => {}
            "minimum" => {
                if value
                    .as_f64()
                    .is_some_and(|number| number < rule.as_f64().unwrap())
                {
                    found.push(format!("{at}: {value} is less than {rule}"));
                }
            }
            "minItems" => {
                let len = value.as_array().map_or(usize::MAX, Vec::len);
                if (len as u64) < rule.as_u64().unwrap() {
                    found.push(format!("{at}: fewer than {rule} items"));
                }
            }
            "items" => {
                let items = value.as_array().into_iter().flatten().enumerate();
                found.extend(
                    items.flat_map(|(n, item)| faults(root, rule, item, &format!("{at}[{n}]"))),
                );
            }
            "required" => {
                let Some(object) = value.as_object() else {
                    continue;
                };
                let names = rule
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|name| name.as_str().unwrap());
                let missing = names.filter(|name| !object.contains_key(*name));
                found.extend(missing.map(|name| format!("{at}: `{name}` is missing")));
            }
            "properties" => {
                let Some(object) = value.as_object() else {
                    continue;
                };
                for (name, rule) in rule.as_object().unwrap() {
                    if let Some(member) = object.get(name) {
                        found.extend(faults(root, rule, member, &format!("{at}.{name}")));
                    }
                }
            }
            "additionalProperties" => {
                let known = schema.get("properties").and_then(Value::as_object);
                for (name, member) in value.as_object().into_iter().flatten() {
                    let place = format!("{at}.{name}");
                    match rule {
                        _ if known.is_some_and(|known| known.contains_key(name)) => {}
                        Value::Bool(false) => found.push(format!("{place}: not in the schema")),
                        rule => found.extend(faults(root, rule, member, &place)),
                    }
                }
            }
            unknown => panic!("the checker does not know the keyword `{unknown}`"),
        }
    }
    found
}

fn is_of_type(rule: &Value, value: &Value) -> bool {
    if let Value::Array(choices) = rule {
        return choices.iter().any(|choice| is_of_type(choice, value));
    }
    match rule.as_str().expect("a type is a name") {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "number" => value.is_number(),
        "integer" => value.is_u64() || value.is_i64(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        unknown => panic!("the checker does not know the type `{unknown}`"),
    }
}
