//! An input as JSON has it: a string, or an object with one key that says what it is.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use omniburn::{Engine, Input, Request, Role};
use serde::Deserialize;

use crate::error::ApiError;

/// One input: a text, or an item of a kind with what it is for.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged, expecting = "expected a text, or an object with one of text, image, audio, video and parts")]
pub(crate) enum Item {
    Text(String),
    /// Ids of some tokenizer, which are refused: they say nothing without it.
    Tokens(#[expect(dead_code, reason = "distinguished by its shape alone")] Vec<serde::de::IgnoredAny>),
    Typed(Box<TypedItem>),
}

/// An item with exactly one of `text`, `image`, `audio`, `video` and `parts`. Media are base64 or data URIs.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TypedItem {
    pub text: Option<String>,
    pub image: Option<String>,
    pub audio: Option<String>,
    pub video: Option<String>,
    pub parts: Option<Vec<Item>>,
    /// What this input is for, where it is not as the rest of the request.
    pub role: Option<RoleName>,
    pub task: Option<String>,
    pub dimensions: Option<u32>,
}

/// What an input is for, by the names that interfaces use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RoleName {
    #[serde(alias = "search_query")]
    Query,
    #[serde(alias = "search_document", alias = "passage")]
    Document,
    None,
}

impl From<RoleName> for Role {
    fn from(name: RoleName) -> Self {
        match name {
            RoleName::Query => Role::Query,
            RoleName::Document => Role::Document,
            RoleName::None => Role::None,
        }
    }
}

/// A list of inputs, or one.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "expected an input or a list of inputs")]
pub(crate) enum OneOrMany<T> {
    Many(Vec<T>),
    One(T),
}

impl<T> OneOrMany<T> {
    pub(crate) fn into_vec(self) -> Vec<T> {
        match self {
            Self::Many(many) => many,
            Self::One(one) => vec![one],
        }
    }
}

impl Item {
    /// The input, and the request it is treated by: `base`, but for what the item says of itself.
    ///
    /// # Errors
    /// 400 with the field, below `at`, for an item that is of no kind or of two, for media that are not base64, and for URLs.
    pub(crate) fn read(self, at: &str, engine: &Engine, base: &Request) -> Result<(Input, Request), ApiError> {
        match self {
            Item::Typed(mut typed) => {
                let mut request = base.clone();
                if let Some(task) = typed.task.take() {
                    request = with_task(request, &task, engine, &format!("{at}.task"))?;
                }
                if let Some(role) = typed.role.take() {
                    request = request.role(role.into());
                }
                if let Some(dim) = typed.dimensions.take() {
                    request = request.dim(dim as usize);
                }
                // A task or dimension that the model lacks is named here, where its field is known.
                engine.embed_with(&[], &request).map_err(|error| ApiError::from(error).of(at))?;
                Ok((typed.input(at)?, request))
            }
            other => Ok((other.input(at)?, base.clone())),
        }
    }

    /// The input alone.
    ///
    /// # Errors
    /// As [`Item::read`], and 400 for a role, task or dimension of its own, which has no meaning here.
    pub(crate) fn input(self, at: &str) -> Result<Input, ApiError> {
        match self {
            Item::Text(text) => Ok(Input::text(text)),
            Item::Tokens(_) => Err(ApiError::field(
                at,
                "token ids are not taken: they are of another model's tokenizer; send the text (LangChain: check_embedding_ctx_length=False)",
            )),
            Item::Typed(typed) => typed.input(at),
        }
    }

    /// A text as it is, or the input of another kind.
    ///
    /// # Errors
    /// As [`Item::input`].
    pub(crate) fn text_or_media(self, at: &str) -> Result<(Option<String>, Option<Input>), ApiError> {
        let text = match &self {
            Item::Text(text) => Some(text.clone()),
            Item::Typed(typed) => typed.text.clone(),
            Item::Tokens(_) => None,
        };
        let input = self.input(at)?;
        Ok(if text.is_some() { (text, None) } else { (None, Some(input)) })
    }
}

impl TypedItem {
    fn input(self, at: &str) -> Result<Input, ApiError> {
        let Self { text, image, audio, video, parts, role, task, dimensions } = self;
        let own = [("role", role.is_some()), ("task", task.is_some()), ("dimensions", dimensions.is_some())];
        if let Some((name, _)) = own.iter().find(|(_, given)| *given) {
            let message = format!("`{name}` is taken of an input of /v1/embeddings alone, and of none of its parts");
            return Err(ApiError::field(format!("{at}.{name}"), message));
        }
        let given = [
            ("text", text.is_some()),
            ("image", image.is_some()),
            ("audio", audio.is_some()),
            ("video", video.is_some()),
            ("parts", parts.is_some()),
        ];
        let kinds: Vec<&str> = given.iter().filter(|(_, given)| *given).map(|(kind, _)| *kind).collect();
        let [kind] = kinds[..] else {
            let found = if kinds.is_empty() { "none of them".to_owned() } else { kinds.join(" and ") };
            let message = format!("an item has one of text, image, audio, video and parts; found {found}");
            return Err(ApiError::field(at, message));
        };
        let at = format!("{at}.{kind}");
        if let Some(text) = text {
            return Ok(Input::text(text));
        }
        if let Some(parts) = parts {
            if parts.is_empty() {
                return Err(ApiError::field(at, "an item of several parts has at least one"));
            }
            let parts = parts.into_iter().enumerate().map(|(i, part)| part.input(&format!("{at}[{i}]")));
            return Ok(Input::parts(parts.collect::<Result<Vec<_>, _>>()?));
        }
        let bytes = |data: Option<String>| decode(&data.unwrap_or_default(), kind, &at);
        Ok(match kind {
            "image" => Input::image_bytes(bytes(image)?),
            "audio" => Input::audio_bytes(bytes(audio)?),
            _ => Input::video_bytes(bytes(video)?),
        })
    }
}

/// A request with a task, by the record's own name or by Jina's names with a role behind a point.
///
/// # Errors
/// 400 for a name that neither the record nor an interface has.
pub(crate) fn with_task(request: Request, task: &str, engine: &Engine, at: &str) -> Result<Request, ApiError> {
    let held = engine.profile().tasks;
    let (name, role) = match task.split_once('.') {
        Some((name, "query")) => (name, Some(Role::Query)),
        Some((name, "passage" | "document")) => (name, Some(Role::Document)),
        _ => (task, None),
    };
    let request = match role {
        Some(role) => request.role(role),
        None => request,
    };
    // A model of one purpose is a retrieval model to those who ask for retrieval.
    match held.iter().any(|one| one == name) {
        true => Ok(request.task(name)),
        false if role.is_some() && name == "retrieval" && held.len() <= 1 => Ok(request),
        false => {
            let held = if held.is_empty() { "none".to_owned() } else { held.join(", ") };
            Err(ApiError::field(at, format!("no task `{task}` in this model; it has {held}")))
        }
    }
}

/// Bytes from base64 or a data URI.
fn decode(data: &str, kind: &str, at: &str) -> Result<Vec<u8>, ApiError> {
    let refused = |message: String| Err(ApiError::field(at, message));
    let encoded = match data.strip_prefix("data:") {
        None => data,
        Some(uri) => {
            let Some((about, encoded)) = uri.split_once(',') else {
                return refused("a data URI has a comma before its data".into());
            };
            let Some(media_type) = about.strip_suffix(";base64") else {
                return refused("only data URIs in base64 are taken".into());
            };
            // Containers go by both names, whatever lies in them.
            let fits = media_type.is_empty()
                || media_type.starts_with(kind)
                || media_type == "application/octet-stream"
                || media_type == "application/ogg"
                || (kind == "audio" && media_type.starts_with("video/"))
                || (kind == "video"
                    && (media_type == "image/gif" || media_type == "image/webp" || media_type == "image/png"));
            if !fits {
                return refused(format!("the data URI says {media_type}, expected {kind}"));
            }
            encoded
        }
    };
    if ["http:", "https:", "file:", "ftp:", "s3:", "gs:"].iter().any(|scheme| encoded.starts_with(scheme)) {
        return refused("a URL is never fetched: send the bytes as base64 or as a data URI".into());
    }
    let encoded: &[u8] = &encoded.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect::<Vec<u8>>();
    let url_safe = encoded.iter().any(|byte| matches!(byte, b'-' | b'_'));
    let padded = encoded.last() == Some(&b'=');
    let decoded = match (url_safe, padded) {
        (false, true) => STANDARD.decode(encoded),
        (false, false) => STANDARD_NO_PAD.decode(encoded),
        (true, true) => URL_SAFE.decode(encoded),
        (true, false) => URL_SAFE_NO_PAD.decode(encoded),
    };
    match decoded {
        Ok(bytes) if bytes.is_empty() => refused(format!("an {kind} without a byte")),
        Ok(bytes) => Ok(bytes),
        Err(error) => refused(format!("not base64: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(text: &str) -> Item {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn items_are_of_exactly_one_kind() {
        for (text, modality) in [
            ("\"a text\"", "text"),
            ("{\"text\": \"a text\"}", "text"),
            ("{\"image\": \"iVBO\"}", "image"),
            ("{\"audio\": \"data:audio/wav;base64,UklGRg==\"}", "audio"),
            ("{\"video\": \"data:video/mp4;base64,AAAA\"}", "video"),
            ("{\"parts\": [{\"text\": \"a\"}, {\"image\": \"iVBO\"}]}", "image"),
        ] {
            assert_eq!(item(text).input("input").unwrap().modality().to_string(), modality, "{text}");
        }
        for (text, why) in [
            ("{}", "none of them"),
            ("{\"text\": \"a\", \"image\": \"iVBO\"}", "text and image"),
            ("{\"image\": \"https://example.org/a.png\"}", "never fetched"),
            ("{\"image\": \"file:///etc/passwd\"}", "never fetched"),
            ("{\"image\": \"data:audio/wav;base64,AAAA\"}", "audio/wav"),
            ("{\"image\": \"data:image/png,AAAA\"}", "base64"),
            ("{\"image\": \"no base64!\"}", "not base64"),
            ("{\"image\": \"\"}", "without a byte"),
            ("{\"parts\": []}", "at least one"),
            ("[1, 2, 3]", "token ids"),
            ("{\"text\": \"a\", \"role\": \"query\"}", "`role` is taken"),
            ("{\"parts\": [{\"text\": \"a\", \"dimensions\": 3}]}", "`dimensions` is taken"),
        ] {
            let error = item(text).input("input[1]").unwrap_err();
            assert!(error.message.contains(why), "{text}: {}", error.message);
            assert!(error.param.unwrap().starts_with("input[1]"), "{text}");
        }
        assert!(serde_json::from_str::<Item>("{\"picture\": \"iVBO\"}").is_err());
    }

    #[test]
    fn base64_is_read_in_every_spelling() {
        for text in ["+/8=", "-_8=", "+/8", "-_8", "+/\n8="] {
            assert_eq!(decode(text, "image", "x").unwrap(), [0xfb, 0xff], "{text:?}");
        }
    }
}
