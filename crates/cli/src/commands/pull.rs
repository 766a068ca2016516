//! `omniburn pull`: a checkpoint by name, fetched and converted.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use omniburn::RecordFolder;
use omniburn_convert::hub::{self, HubError, HubOptions, Pulled};
use omniburn_convert::{ConvertOptions, check_family, convert};
use serde::{Deserialize, Serialize};

use super::convert::{for_people, task_choice};
use super::{hf_cache, mebibytes, user_folders};
use crate::args::PullArgs;
use crate::failure::{DONE, Failure, Outcome};
use crate::interrupt::on_interrupt;
use crate::output::{OutFile, destination, json_line, write_stdout};
use crate::progress::{bytes_bar, transfer_bar};

/// What a record in the user's data folder was made from, beside it.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Origin {
    repo: String,
    commit: String,
    /// The GGUF file, where the record was not made from the folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    dtype: String,
    task: Option<String>,
    tool: String,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Line<'a> {
    model: &'a str,
    record: &'a Path,
    checkpoint: &'a Path,
    commit: &'a str,
    licence: Option<&'a str>,
    files: usize,
    bytes: u64,
    fetched: u64,
    converted: bool,
}

/// Fetches a checkpoint into the Hugging Face cache and converts it into the user's data folder.
///
/// # Errors
/// [`HubError`] with its exit code; what `convert` refuses. A record that was there before is then as it was.
pub fn run(args: &PullArgs) -> Outcome {
    let var = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let cache = hf_cache::folders(|name| std::env::var_os(name), std::env::home_dir()).into_iter().next();
    let cache =
        cache.ok_or_else(|| Failure::usage("no home folder is known: HF_HOME says where to keep checkpoints"))?;
    let records = user_folders::records();
    let records =
        records.ok_or_else(|| Failure::usage("no home folder is known: XDG_DATA_HOME says where to keep records"))?;
    let cancel: Arc<AtomicBool> = Arc::default();
    let stop = Arc::clone(&cancel);
    on_interrupt(move || stop.store(true, Ordering::SeqCst));

    let mut options = HubOptions::new(&args.name, &cache);
    options.revision.clone_from(&args.revision);
    options.file.clone_from(&args.file);
    options.endpoint = match (&args.endpoint, var("HF_ENDPOINT")) {
        (Some(endpoint), _) => endpoint.clone(),
        (None, Some(endpoint)) => endpoint.to_string_lossy().into_owned(),
        (None, None) => options.endpoint,
    };
    options.token = token(args, &var, &cache)?;
    options.offline = args.offline || var("HF_HUB_OFFLINE").is_some_and(|value| is_yes(&value));
    options.proxy = proxy(&options.endpoint, &var);
    options.certificates =
        ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"].into_iter().find_map(var).map(PathBuf::from);
    options.check = Some(Arc::new(|folder| check_family(folder).map_err(|error| error.to_string())));
    options.cancel = Arc::clone(&cancel);
    let bar = transfer_bar("fetching", args.quiet);
    let shown = bar.clone();
    options.progress = Some(Arc::new(move |done, total| {
        shown.set_length(total);
        shown.set_position(done);
    }));
    let pulled = hub::pull(&options);
    bar.finish_and_clear();
    let pulled = pulled?;

    let out = records.join(&args.name);
    let origin = Origin {
        repo: args.name.clone(),
        commit: pulled.commit.clone(),
        file: args.file.clone(),
        dtype: args.dtype.to_string(),
        task: args.task.clone(),
        tool: concat!("omniburn ", env!("CARGO_PKG_VERSION")).into(),
    };
    let note = note_beside(&out);
    let known = fs::read(&note).ok().and_then(|text| serde_json::from_slice::<Origin>(&text).ok());
    let up_to_date = known.as_ref() == Some(&origin) && RecordFolder::open(&out).is_ok();
    let report = if up_to_date { None } else { Some(make_record(args, &pulled, &out, &origin, &cancel)?) };

    if args.json {
        json_line(&Line {
            model: &args.name,
            record: &out,
            checkpoint: &pulled.folder,
            commit: &pulled.commit,
            licence: pulled.licence.as_deref(),
            files: pulled.files,
            bytes: pulled.bytes,
            fetched: pulled.fetched,
            converted: report.is_some(),
        })?;
        return Ok(DONE);
    }
    let mut text = report.unwrap_or_else(|| "the record is up to date\n".into());
    text += &summary(args, &pulled, &out);
    write_stdout(text.as_bytes())?;
    Ok(DONE)
}

/// Converts, notes what the record was made from, and gives the report.
fn make_record(
    args: &PullArgs,
    pulled: &Pulled,
    out: &Path,
    origin: &Origin,
    cancel: &Arc<AtomicBool>,
) -> Result<String, Failure> {
    let parent = out.parent().unwrap_or(out);
    fs::create_dir_all(parent).map_err(|e| Failure::usage(format!("{}: {e}", parent.display())))?;
    let mut options = ConvertOptions::new(&pulled.folder, out);
    options.tasks = task_choice(args.task.as_deref());
    options.dtype = args.dtype;
    options.force = true;
    options.cancel = Arc::clone(cancel);
    let bar = bytes_bar(0, "converting");
    let shown = bar.clone();
    options.progress = Some(Arc::new(move |done, total| {
        shown.set_length(total);
        shown.set_position(done);
    }));
    let note = note_beside(out);
    // Killed between the two, the record is made again.
    let _ = fs::remove_file(&note);
    let report = convert(&options);
    bar.finish_and_clear();
    let report = report?;
    let mut file = OutFile::create(&destination(&note)?)?;
    file.write(&serde_json::to_vec(origin).expect("plain data always serialises"))?;
    file.finish()?;
    Ok(for_people(&report))
}

/// Where the origin of a record is noted: a hidden file beside it, which no list of records shows.
fn note_beside(out: &Path) -> PathBuf {
    let name = out.file_name().unwrap_or_default().to_string_lossy();
    out.with_file_name(format!(".{name}.pull.json"))
}

fn summary(args: &PullArgs, pulled: &Pulled, out: &Path) -> String {
    let fetched = match pulled.fetched {
        0 => "all of them in the cache before".into(),
        bytes => format!("{} fetched", mebibytes(bytes)),
    };
    let bytes = mebibytes(pulled.bytes);
    let files = match &args.file {
        Some(file) => file.clone(),
        None => format!("{} files", pulled.files),
    };
    let licence = pulled.licence.as_deref().unwrap_or("not stated by its card; see its page");
    format!(
        "checkpoint {} at {}\n  {files}, {bytes}, {fetched}\n  licence: {licence}\nrecord {}\n  omniburn embed --model {} \"a text\"\n",
        args.name,
        pulled.commit,
        out.display(),
        args.name,
    )
}

/// The token: of `--token-file`; else, for the hub that the environment means, where the library of the hub looks for it.
///
/// # Source
/// huggingface_hub, `constants.py` and `utils/_auth.py`.
fn token(args: &PullArgs, var: &impl Fn(&str) -> Option<OsString>, cache: &Path) -> Result<Option<String>, Failure> {
    if let Some(path) = &args.token_file {
        let text = fs::read_to_string(path).map_err(|e| Failure::usage(format!("{}: {e}", path.display())))?;
        return match text.trim() {
            "" => Err(Failure::usage(format!("{}: no token in it", path.display()))),
            token => Ok(Some(token.into())),
        };
    }
    // A server that was named by hand gets no token that was made for another.
    if args.endpoint.is_some() {
        return Ok(None);
    }
    let plain = |value: OsString| Some(value.to_string_lossy().trim().to_string()).filter(|token| !token.is_empty());
    if let Some(token) = ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"].into_iter().find_map(|name| var(name).and_then(plain)) {
        return Ok(Some(token));
    }
    let stored = var("HF_TOKEN_PATH").map(PathBuf::from);
    let stored =
        stored.or_else(|| Some(var("HF_HOME").map_or(cache.parent()?.to_path_buf(), PathBuf::from).join("token")));
    let text = stored.and_then(|path| fs::read_to_string(path).ok());
    Ok(text.map(|text| text.trim().to_string()).filter(|token| !token.is_empty()))
}

/// Whether a variable of the hub's library means yes.
fn is_yes(value: &OsString) -> bool {
    ["1", "on", "yes", "true"].contains(&value.to_string_lossy().to_lowercase().as_str())
}

/// The proxy that the environment names for an address, unless its host needs none.
fn proxy(endpoint: &str, var: &impl Fn(&str) -> Option<OsString>) -> Option<String> {
    let (scheme, rest) = endpoint.split_once("://")?;
    let host = rest.split(['/', ':']).next().unwrap_or_default().to_lowercase();
    let word = |name: &str| {
        let found = var(name).or_else(|| var(&name.to_lowercase()));
        found.map(|value| value.to_string_lossy().into_owned())
    };
    let direct = word("NO_PROXY").unwrap_or_default().to_lowercase();
    let direct = direct.split(',').map(|part| part.trim().trim_start_matches("*.").trim_start_matches('.'));
    let covers =
        |part: &str| part == "*" || (!part.is_empty() && (host == part || host.ends_with(&format!(".{part}"))));
    if direct.clone().any(covers) {
        return None;
    }
    let named = if scheme.eq_ignore_ascii_case("https") { "HTTPS_PROXY" } else { "HTTP_PROXY" };
    word(named).or_else(|| word("ALL_PROXY"))
}

impl From<HubError> for Failure {
    fn from(error: HubError) -> Self {
        match error {
            HubError::Cancelled => Failure::Interrupted,
            error => Failure::with_code(error.exit_code(), error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(pairs: &'static [(&'static str, &'static str)]) -> impl Fn(&str) -> Option<OsString> {
        move |name| pairs.iter().find(|(known, _)| *known == name).map(|(_, value)| OsString::from(value))
    }

    #[test]
    fn a_proxy_is_taken_unless_the_host_needs_none() {
        let all = environment(&[("HTTPS_PROXY", "http://p:1"), ("no_proxy", "localhost, .inner.example")]);
        assert_eq!(proxy("https://hub.example", &all).as_deref(), Some("http://p:1"));
        for near in ["https://a.inner.example", "https://inner.example:80", "https://localhost/x", "http://hub.example"]
        {
            assert_eq!(proxy(near, &all), None, "{near}");
        }
        assert_eq!(proxy("http://x", &environment(&[("ALL_PROXY", "http://q:2")])).as_deref(), Some("http://q:2"));
    }

    #[test]
    fn a_named_server_gets_only_the_token_that_is_named_for_it() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("token"), "stored\n").unwrap();
        fs::write(folder.path().join("own"), "own\n").unwrap();
        let cache = folder.path().join("hub");
        let args = |endpoint: Option<&str>, file: Option<&str>| PullArgs {
            name: "org/name".into(),
            revision: "main".into(),
            file: None,
            endpoint: endpoint.map(String::from),
            token_file: file.map(|name| folder.path().join(name)),
            dtype: omniburn::Dtype::Bf16,
            task: None,
            offline: false,
            quiet: true,
            json: false,
        };
        let of = |args: &PullArgs, var: &dyn Fn(&str) -> Option<OsString>| token(args, &var, &cache).ok().flatten();
        let (none, set) = (environment(&[]), environment(&[("HF_TOKEN", " set ")]));
        assert_eq!(of(&args(None, None), &none).as_deref(), Some("stored"));
        assert_eq!(of(&args(None, None), &set).as_deref(), Some("set"));
        assert_eq!(of(&args(None, Some("own")), &set).as_deref(), Some("own"));
        assert_eq!(of(&args(Some("http://mirror"), None), &set), None);
        assert_eq!(of(&args(Some("http://mirror"), Some("own")), &set).as_deref(), Some("own"));
        assert!(token(&args(None, Some("missing")), &none, &cache).is_err());
    }
}
