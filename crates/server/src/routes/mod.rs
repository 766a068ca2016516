//! The interfaces: which path is answered by whom.

mod about;
mod embeddings;
mod map;
mod rerank;
pub(crate) mod search;
mod shared;
mod tei;

use std::sync::Arc;

use axum::handler::Handler;
use axum::http::StatusCode;
use axum::routing::{self, MethodRouter};
use axum::{Router, middleware};

use crate::error::ApiError;
use crate::guard::guard;
use crate::state::State;

/// A path with a method and who answers it.
type Entry = (&'static str, &'static str, MethodRouter<Arc<State>>);

fn get<H: Handler<T, Arc<State>>, T: 'static>(path: &'static str, handler: H) -> Entry {
    (path, "get", routing::get(handler))
}

fn post<H: Handler<T, Arc<State>>, T: 'static>(path: &'static str, handler: H) -> Entry {
    (path, "post", routing::post(handler))
}

/// Every path but those of other protocols.
fn entries() -> Vec<Entry> {
    vec![
        post("/v1/embeddings", embeddings::embeddings),
        post("/embed", tei::embed),
        // huggingface_hub's client posts to the address it was given.
        get("/", about::page),
        post("/", tei::embed),
        post("/embed_sparse", tei::embed_sparse),
        post("/similarity", tei::similarity),
        post("/tokenize", tei::tokenize),
        get("/info", tei::info),
        post("/rerank", rerank::rerank),
        post("/v1/rerank", rerank::rerank),
        post("/v2/rerank", rerank::rerank),
        get("/v1/search", search::by_url),
        post("/v1/search", search::by_body),
        get("/v1/index", search::status),
        get("/v1/map", map::map),
        get("/v1/items/{id}", search::item),
        get("/v1/items/{id}/thumbnail", search::thumbnail),
        post("/v1/chat/completions", about::no_text),
        post("/v1/completions", about::no_text),
        post("/v1/audio/transcriptions", about::no_text),
        get("/v1/models", about::models),
        get("/v1/models/{*name}", about::model),
        get("/health", about::health),
        get("/ready", about::ready),
        get("/metrics", about::metrics),
        get("/openapi.json", about::openapi),
        get("/docs", about::docs),
    ]
}

/// Every path.
pub(crate) fn router(state: Arc<State>) -> Router {
    let described = entries().into_iter().fold(Router::new(), |router, (path, _, answer)| router.route(path, answer));
    let parts = about::PARTS.iter().fold(described, |router, part| {
        let (kind, text) = (part.kind, part.text);
        router.route(part.path, routing::get(move || async move { about::part_of_page(kind, text) }))
    });
    parts
        .route_service("/mcp", crate::mcp::over_http(&state))
        .fallback(absent)
        .method_not_allowed_fallback(other_method)
        .layer(middleware::from_fn_with_state(Arc::clone(&state), guard))
        .with_state(state)
}

async fn absent() -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, "not_found", "no such path; GET /openapi.json lists them")
}

async fn other_method() -> ApiError {
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "this path is asked by another method")
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::BTreeSet;

    use serde::de::value::Error;
    use serde::de::{DeserializeOwned, Deserializer, Error as _, Visitor};
    use serde_json::{Value, json};

    use super::*;
    use crate::item::TypedItem;

    type Names = BTreeSet<String>;

    /// Takes down the names that a struct takes its fields by, and gives it nothing.
    struct Fields<'a>(&'a RefCell<Names>);

    impl<'de> Deserializer<'de> for Fields<'_> {
        type Error = Error;

        fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
            Err(Error::custom("not a struct"))
        }

        fn deserialize_struct<V: Visitor<'de>>(
            self,
            _: &'static str,
            fields: &'static [&'static str],
            _: V,
        ) -> Result<V::Value, Error> {
            self.0.borrow_mut().extend(fields.iter().map(|field| (*field).to_owned()));
            Err(Error::custom("the names are known"))
        }

        serde::forward_to_deserialize_any! {
            bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit unit_struct newtype_struct
            seq tuple tuple_struct map enum identifier ignored_any
        }
    }

    /// The names of a struct's fields, and whether it can do without all of them.
    fn read_by<T: DeserializeOwned>() -> (Names, bool) {
        let names = RefCell::default();
        assert!(T::deserialize(Fields(&names)).is_err());
        (names.into_inner(), serde_json::from_value::<T>(json!({})).is_ok())
    }

    fn described() -> Value {
        serde_json::from_str(about::OPENAPI).unwrap()
    }

    fn keys(object: &Value) -> Names {
        object.as_object().unwrap_or_else(|| panic!("{object}")).keys().cloned().collect()
    }

    #[test]
    fn the_description_has_every_path_and_method_and_no_other() {
        let answered: BTreeSet<(String, String)> =
            entries().into_iter().map(|(path, method, _)| (path.replace("{*", "{"), method.to_owned())).collect();
        let described = described();
        let paths = described["paths"].as_object().unwrap();
        let documented: BTreeSet<(String, String)> = paths
            .iter()
            .flat_map(|(path, methods)| keys(methods).into_iter().map(|method| (path.clone(), method)))
            .collect();
        assert_eq!(documented, answered);
    }

    #[test]
    fn the_description_has_every_field_and_no_other() {
        let described = described();
        let schemas = &described["components"]["schemas"];
        let bodies = [
            (&schemas["Embeddings"], read_by::<embeddings::Body>()),
            (&schemas["TeiEmbed"], read_by::<tei::EmbedBody>()),
            (&schemas["Tokenize"], read_by::<tei::TokenizeBody>()),
            (&schemas["Similarity"], read_by::<tei::SimilarityBody>()),
            (&schemas["Similarity"]["properties"]["inputs"], read_by::<tei::Sentences>()),
            (&schemas["Similarity"]["properties"]["parameters"], read_by::<tei::Cut>()),
            (&schemas["Rerank"], read_by::<rerank::Body>()),
            (&schemas["Search"], read_by::<search::Params>()),
            (&schemas["Item"]["oneOf"][1], read_by::<TypedItem>()),
        ];
        for (schema, (names, none_needed)) in &bodies {
            assert_eq!(&keys(&schema["properties"]), names);
            assert_eq!(schema["additionalProperties"], false, "{names:?}");
            let needed = schema["required"].as_array().is_some_and(|needed| !needed.is_empty());
            assert_eq!(needed, !none_needed, "{names:?}");
        }
        // Each body that a path takes is one of those above.
        for (path, methods) in described["paths"].as_object().unwrap() {
            for operation in methods.as_object().unwrap().values() {
                let Some(named) = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].as_str()
                else {
                    continue;
                };
                let schema = &schemas[named.rsplit('/').next().unwrap()];
                assert!(bodies.iter().any(|(known, _)| *known == schema), "{path}: {named}");
            }
        }
        // What stands in addresses.
        for (path, (names, _)) in [
            ("/v1/search", read_by::<search::Params>()),
            ("/v1/items/{id}", read_by::<search::Place>()),
            ("/v1/items/{id}/thumbnail", read_by::<search::Place>()),
        ] {
            let parameters = described["paths"][path]["get"]["parameters"].as_array().unwrap();
            let documented = parameters.iter().filter(|one| one["in"] == "query");
            let documented: Names = documented.map(|one| one["name"].as_str().unwrap().to_owned()).collect();
            assert_eq!(documented, names, "{path}");
        }
    }
}
