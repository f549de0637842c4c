//! The OpenAPI document: the declarations of the routes, and additions that concern all of them.
//!
//! A route declares its answers and its own problems, such as [`Conflict`]. Problems that follow from its shape are added
//! here: a route that needs the key answers 401, one with a body 413. Each problem is one component, to which all routes
//! refer. In builds for tests, [`super::check_answer`] compares each answer with the document.

use std::collections::BTreeMap;

use axum::{
    http::{Method, StatusCode, header},
    response::Response,
};
use kiln_api::{PROBLEM_JSON, ProblemCode};
use serde_json::{Map, Value, json};
use utoipa::{
    IntoResponses,
    openapi::{self, OpenApi, Ref, RefOr},
};

/// The description of the API.
pub(super) const ABOUT: &str = "A Blender render farm.\n\n\
    Errors are problem details (RFC 9457). Every answer of a route is listed with it. A path that is not listed answers \
    401 without the key and 404 with it; a method that is not listed with its path answers 401 or 405, with the header \
    `Allow`. Every path that answers GET answers HEAD, too. A request that is not HTTP, or has more than 100 headers, is \
    answered with 400, 414 or 431 and no body. Fields and query parameters that are not listed are ignored, and so is \
    the type of a request's body.";

macro_rules! problems {
    ($($name:ident: $status:literal),+ $(,)?) => {
        $(
            /// A problem that a route declares in its `responses`.
            pub(super) struct $name;

            impl IntoResponses for $name {
                fn responses() -> BTreeMap<String, RefOr<openapi::Response>> {
                    let problem = Ref::from_response_name(component_name($status));
                    [(stringify!($status).to_owned(), RefOr::Ref(problem))].into()
                }
            }
        )+
    };
}

problems!(
    NotFound: 404,
    Conflict: 409,
    Gone: 410,
    OutOfRange: 416,
    Unprocessable: 422,
    UpgradeRequired: 426,
    NoSpace: 507,
);

/// Returns the name of the component that describes the problems of a status.
fn component_name(status: u16) -> String {
    let reason = StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
    reason.unwrap_or("Problem").chars().filter(char::is_ascii_alphanumeric).collect()
}

/// Returns the document as it is served: the declarations of the routes, made exact.
pub(super) fn complete(declared: &OpenApi) -> Value {
    let mut document = serde_json::to_value(declared).unwrap_or_default();
    let mut responses = Map::new();
    for code in ProblemCode::ALL {
        responses.entry(component_name(code.status())).or_insert_with(|| describe_problem(code.status()));
    }
    document["components"]["responses"] = responses.into();
    let paths = std::mem::take(&mut document["paths"]);
    let mut described = Map::new();
    for (path, mut item) in into_map(paths) {
        // The router marks a parameter that takes the rest of the path; OpenAPI does not.
        let path = path.replace("{*", "{");
        for (method, operation) in item.as_object_mut().into_iter().flatten() {
            complete_operation(method, operation);
        }
        described.insert(path, item);
    }
    document["paths"] = described.into();
    tighten(&mut document);
    document
}

fn into_map(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

/// Returns the component of a status: its codes, and the headers that come with them.
fn describe_problem(status: u16) -> Value {
    let codes: Vec<ProblemCode> =
        ProblemCode::ALL.into_iter().filter(|code| code.status() == status).collect();
    let titles: Vec<String> =
        codes.iter().map(|code| format!("{} (`{}`)", code.title(), code.name())).collect();
    let names: Vec<String> = codes.iter().map(|code| code.name()).collect();
    let text = |description: &str| json!({"required": true, "description": description, "schema": {"type": "string"}});
    let headers = match status {
        401 => json!({"WWW-Authenticate": text("The scheme of the key: `Bearer`.")}),
        405 => json!({"Allow": text("The methods that the path takes.")}),
        416 => json!({"Content-Range": text("The number of bytes: `bytes */SIZE`.")}),
        426 => json!({"Upgrade": text("`websocket`")}),
        503 => json!({"Retry-After": text("Seconds to wait.")}),
        _ => json!({}),
    };
    json!({
        "description": titles.join("; "),
        "headers": headers,
        "content": {PROBLEM_JSON: {"schema": {"allOf": [
            {"$ref": "#/components/schemas/Problem"},
            {"type": "object", "properties": {"status": {"const": status}, "code": {"enum": names}}}
        ]}}}
    })
}

fn complete_operation(method: &str, operation: &mut Value) {
    // Several modules have functions of one name; ids must be unique.
    let (tag, name) = (operation["tags"][0].clone(), operation["operationId"].clone());
    if let (Some(tag), Some(name)) = (tag.as_str(), name.as_str()) {
        operation["operationId"] = format!("{tag}_{name}").into();
    }
    for parameter in operation.get_mut("parameters").and_then(Value::as_array_mut).into_iter().flatten() {
        // An optional parameter is left out, never null.
        remove_null(&mut parameter["schema"]);
    }
    let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
    let has = |place: &str| parameters.iter().any(|parameter| parameter["in"] == place);
    // A malformed range is ignored, not refused.
    let ranges = |parameter: &Value| matches!(parameter["name"].as_str(), Some("Range" | "If-Range"));
    let has_header = parameters.iter().any(|one| one["in"] == "header" && !ranges(one));
    let has_body = operation.get("requestBody").is_some();
    let is_public =
        operation["security"].as_array().is_some_and(|all| all.iter().any(|one| *one == json!({})));
    let shape = [
        (true, 403),
        (true, 500),
        (!is_public, 401),
        (!is_public, 503),
        (has("path"), 404),
        (has_body || has("query") || has_header, 400),
        (has_body, 413),
    ];
    let Some(responses) = operation["responses"].as_object_mut() else { return };
    for (_, status) in shape.into_iter().filter(|(applies, _)| *applies) {
        responses
            .entry(status.to_string())
            .or_insert_with(|| json!({"$ref": format!("#/components/responses/{}", component_name(status))}));
    }
    for (status, response) in responses {
        if method == "head" {
            // HEAD has the same answers without a body.
            if response.get("$ref").is_some()
                && let Ok(status) = status.parse()
            {
                *response = describe_problem(status);
            }
            if let Some(fields) = response.as_object_mut() {
                fields.remove("content");
            }
        }
        if response.get("$ref").is_none() && response.get("description").is_none_or(|text| text == "") {
            response["description"] = "Done".into();
        }
    }
    // HTTP does not distinguish an absent body from an empty one.
    if operation["requestBody"]["content"].get(kiln_api::BINARY).is_some() {
        operation["requestBody"]["required"] = false.into();
    }
}

fn remove_null(schema: &mut Value) {
    if let Some(types) = schema["type"].as_array() {
        let other = types.iter().find(|one| *one != "null").cloned();
        schema["type"] = other.unwrap_or_default();
    }
    if let Some(one) = schema["oneOf"].as_array().and_then(|all| all.iter().find(|one| one["type"] != "null"))
    {
        *schema = one.clone();
    }
}

/// Makes every schema below exactly as strict as serde.
fn tighten(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(tighten),
        Value::Object(fields) => {
            add_bounds(fields);
            // Sets are read from lists: duplicates are allowed.
            fields.remove("uniqueItems");
            for one in fields.get_mut("oneOf").and_then(Value::as_array_mut).into_iter().flatten() {
                close_variant(one);
            }
            for (kind, media) in
                fields.get_mut("content").and_then(Value::as_object_mut).into_iter().flatten()
            {
                let is_text = kind.ends_with("json") || kind.starts_with("text/");
                if kind == "text/event-stream" {
                    media["schema"] = describe_message(&media["schema"]);
                } else if kind.contains('/') && !is_text {
                    media["schema"] = json!({"type": "string", "format": "binary"});
                }
            }
            fields.values_mut().for_each(tighten);
        }
        _ => {}
    }
}

/// Adds the bounds that the Rust type of an integer has.
fn add_bounds(schema: &mut Map<String, Value>) {
    // The registry of formats has `uint32`; utoipa writes `u-int32`.
    let format = schema.get("format").and_then(Value::as_str).unwrap_or_default().replace("u-int", "uint");
    let (least, most) = match format.as_str() {
        "uint8" => (json!(0), json!(u8::MAX)),
        "uint16" => (json!(0), json!(u16::MAX)),
        "uint32" => (json!(0), json!(u32::MAX)),
        "uint64" => (json!(0), json!(u64::MAX)),
        "int32" => (json!(i32::MIN), json!(i32::MAX)),
        "int64" => (json!(i64::MIN), json!(i64::MAX)),
        _ => return,
    };
    schema.insert("format".to_owned(), format.into());
    schema.entry("minimum").or_insert(least);
    schema.entry("maximum").or_insert(most);
}

/// Allows no further field in the object of an enum's variant: serde accepts only the name of the variant.
fn close_variant(variant: &mut Value) {
    let Some(properties) = variant["properties"].as_object().filter(|all| all.len() == 1) else { return };
    // A variant whose field is the tag may have further fields.
    let is_tag = properties.values().any(|only| only.get("enum").is_some() || only.get("const").is_some());
    if !is_tag && variant["required"].as_array().is_some_and(|required| required.len() == 1) {
        variant["additionalProperties"] = false.into();
    }
}

/// Returns the schema of a message of the event stream, whose data is JSON text.
fn describe_message(event: &Value) -> Value {
    json!({
        "type": "object",
        "required": ["id", "event", "data"],
        "properties": {
            "id": {"type": "string", "pattern": "^[0-9]+$", "description": "The event's number."},
            "event": {"type": "string", "description": "What changed."},
            "data": {"type": "string", "contentMediaType": "application/json", "contentSchema": event}
        }
    })
}

/// True if answers are compared with the document: in builds for tests.
pub(super) const IS_CHECKED: bool = cfg!(debug_assertions);

/// Returns a description of an answer that the document does not list.
pub(super) fn find_undocumented(
    document: &Value,
    route: &str,
    method: &Method,
    response: &Response,
) -> Option<String> {
    let status = response.status();
    let said = format!("{method} {route} answers {status}");
    let item = document["paths"].get(route)?;
    let name = method.as_str().to_lowercase();
    let operation = match item.get(&name) {
        Some(operation) => operation,
        None if *method == Method::HEAD => item.get("get")?,
        // Methods without an operation are refused.
        None => return status.is_success().then_some(said),
    };
    let mut answer = operation["responses"].get(status.as_str());
    if let Some(reference) = answer.and_then(|answer| answer["$ref"].as_str()) {
        answer = document.pointer(reference.trim_start_matches('#'));
    }
    let Some(answer) = answer else { return Some(said) };
    let kind = response.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let kind = kind.map(|kind| kind.split(';').next().unwrap_or_default());
    let is_documented = match (kind, answer.get("content")) {
        (Some(kind), Some(content)) => content.get(kind).is_some(),
        (None, content) => content.is_none() || *method == Method::HEAD,
        (Some(_), None) => *method == Method::HEAD,
    };
    (!is_documented).then(|| format!("{said} as {}", kind.unwrap_or("nothing")))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{super::DOCUMENT, *};

    fn operations() -> impl Iterator<Item = (String, &'static Value)> {
        let paths = DOCUMENT["paths"].as_object().unwrap();
        paths.iter().flat_map(|(path, item)| {
            let methods = item.as_object().unwrap();
            methods.iter().map(move |(method, operation)| (format!("{method} {path}"), operation))
        })
    }

    #[test]
    fn every_problem_is_described_once_and_with_its_type() {
        let mut codes = BTreeSet::new();
        for response in DOCUMENT["components"]["responses"].as_object().unwrap().values() {
            let schema = &response["content"][PROBLEM_JSON]["schema"]["allOf"][1]["properties"];
            for code in schema["code"]["enum"].as_array().unwrap() {
                assert!(codes.insert(code.as_str().unwrap()), "{code} twice");
            }
        }
        assert_eq!(codes.len(), ProblemCode::ALL.len());
        for (what, operation) in operations() {
            for (status, response) in operation["responses"].as_object().unwrap() {
                let is_problem = status.parse::<u16>().unwrap() >= 400;
                let is_shared = response.get("$ref").is_some() || what.starts_with("head");
                assert!(!is_problem || is_shared, "{what} describes {status} by itself");
            }
        }
    }

    #[test]
    fn operations_have_ids_of_their_own_and_say_who_may_ask() {
        let mut ids = BTreeSet::new();
        for (what, operation) in operations() {
            let id = operation["operationId"].as_str().unwrap();
            assert!(ids.insert(id), "{what}: {id} twice");
            let is_public = crate::auth::PUBLIC.iter().any(|path| what == format!("get {path}"));
            assert_eq!(operation["responses"].get("401").is_none(), is_public, "{what}");
        }
        assert!(ids.len() > 50, "{}", ids.len());
    }

    #[test]
    fn what_is_not_documented_is_found() {
        let answer = |status: u16, kind: &'static str| {
            let response = Response::builder().status(status).header(header::CONTENT_TYPE, kind);
            response.body(axum::body::Body::empty()).unwrap()
        };
        let check = |method: Method, route: &str, status: u16, kind: &'static str| {
            find_undocumented(&DOCUMENT, route, &method, &answer(status, kind)).is_none()
        };
        assert!(check(Method::GET, "/api/v1/jobs/{id}", 200, "application/json"));
        assert!(check(Method::GET, "/api/v1/jobs/{id}", 404, PROBLEM_JSON));
        assert!(check(Method::HEAD, "/api/v1/jobs/{id}", 401, PROBLEM_JSON));
        assert!(check(Method::HEAD, "/api/v1/blobs/{hash}", 401, PROBLEM_JSON));
        assert!(check(Method::PUT, "/api/v1/jobs/{id}", 405, PROBLEM_JSON));
        assert!(!check(Method::PUT, "/api/v1/jobs/{id}", 200, "application/json"));
        assert!(!check(Method::GET, "/api/v1/jobs/{id}", 404, "application/json"));
        assert!(!check(Method::GET, "/api/v1/jobs/{id}", 409, PROBLEM_JSON));
        assert!(!check(Method::GET, "/api/v1/jobs/{id}", 201, "application/json"));
    }
}
