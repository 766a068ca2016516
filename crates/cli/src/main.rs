//! The `omniburn` command line: arguments in, library calls, results out.
//!
//! | where | what |
//! |---|---|
//! | `args`, `find_args`, `model_args`, `serve_args` | what was typed |
//! | [`omniburn_cli::inputs`] | what becomes an input, and by which rule: a library, so that hostile bytes reach it |
//! | `commands` | one file a verb |
//! | `output`, `progress` | results to standard output, everything else to standard error |
//! | `failure`, `interrupt` | how a command ends |
//! | `traces` | spans of requests to a collector, with the feature `otel` |
//!
//! Only this crate reads the environment: `OMNIBURN_LOG`, where the user's folders and the Hugging Face cache lie, and for
//! `pull` the settings of the hub's own library and the proxy; the exporter of spans reads OpenTelemetry's own variables.
#![forbid(unsafe_code)]

mod args;
mod commands;
mod failure;
mod find_args;
mod interrupt;
mod model_args;
mod output;
mod progress;
#[cfg(feature = "serve")]
mod serve_args;
#[cfg(feature = "otel")]
mod traces;

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};

use clap::{CommandFactory, FromArgMatches};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{EnvFilter, Layer};

use crate::args::{Cli, Command, LogArgs};
use crate::failure::{Failure, Outcome, SOME_FAILED, USAGE};
use crate::progress::say;

/// Where and why the last panic happened, for the sentence that asks for a report.
static LAST_PANIC: Mutex<Option<String>> = Mutex::new(None);

fn main() -> ExitCode {
    // Before the first thread: a long job over many kinds of input must not grow.
    omniburn::settle_allocator();
    // The engine survives a panic in a unit of work, and says so on that input's line: it is not printed twice.
    set_hook(Box::new(|panic| {
        let message = panic.to_string().replace('\n', " ");
        tracing::debug!("{message}");
        *LAST_PANIC.lock().unwrap_or_else(PoisonError::into_inner) = Some(message);
    }));
    let code = catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| {
        let message = LAST_PANIC.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap_or_default();
        let version = env!("CARGO_PKG_VERSION");
        say(format_args!("error: a bug in omniburn {version}, please report it with what you ran: {message}"));
        SOME_FAILED
    });
    ExitCode::from(code)
}

fn run() -> u8 {
    let matches = match Cli::command().try_get_matches() {
        Ok(matches) => matches,
        Err(e) => {
            // Help and version are no mistakes; a reader that has gone away is none either.
            let _ = e.print();
            return u8::try_from(e.exit_code()).unwrap_or(USAGE);
        }
    };
    let cli = match Cli::from_arg_matches(&matches) {
        Ok(cli) => cli,
        Err(e) => {
            let _ = e.print();
            return USAGE;
        }
    };
    let typed = args::typed_in_order;
    let verb = matches.subcommand().map(|(_, verb)| verb);
    let outcome = start_logs(&cli.logs, endpoint(&cli.command)).and_then(|_traces| match (cli.command, verb) {
        #[cfg(feature = "mini")]
        (Command::Demo, _) => commands::demo::run(),
        (Command::Convert(args), _) => commands::convert::run(&args),
        #[cfg(feature = "hub")]
        (Command::Pull(args), _) => commands::pull::run(&args),
        (Command::Embed(args), Some(verb)) => commands::embed::run(&args, typed(verb)),
        (Command::Compare(args), Some(verb)) => commands::compare::run(&args, &typed(verb)),
        (Command::Rerank(args), _) => commands::rerank::run(&args),
        (Command::Index(args), _) => commands::index::run(&args),
        (Command::Search(args), _) => commands::search::run(&args),
        #[cfg(feature = "serve")]
        (Command::Serve(args), _) => commands::serve::run(&args),
        #[cfg(feature = "serve")]
        (Command::Mcp(args), _) => commands::mcp::run(&args),
        (Command::Calibrate(args), _) => commands::calibrate::run(&args),
        (Command::Get(args), _) => commands::get::run(&args),
        (Command::Replay(args), Some(verb)) => commands::replay::run(&args, typed(verb)),
        (Command::Inspect(args), _) => commands::inspect::run(&args),
        (Command::Models(args), _) => commands::models::run(&args),
        (Command::Doctor(args), _) => commands::doctor::run(&args),
        (Command::Bench(args), _) => commands::bench::run(&args),
        (Command::Completions(args), _) => commands::completions::run(&args),
        (Command::Man(args), _) => commands::man::run(&args),
        (Command::Embed(_) | Command::Compare(_) | Command::Replay(_), None) => {
            unreachable!("a verb that was read has matches")
        }
    });
    end(outcome)
}

fn end(outcome: Outcome) -> u8 {
    match outcome {
        Ok(code) => code,
        Err(failure) => {
            if let Failure::Error { error, .. } = &failure {
                say(format_args!("error: {error}"));
            }
            failure.code()
        }
    }
}

/// The collector that spans are sent to.
fn endpoint(command: &Command) -> Option<&str> {
    match command {
        #[cfg(feature = "serve")]
        Command::Serve(args) => args.otlp_endpoint.as_deref(),
        _ => None,
    }
}

/// What sends the last spans when it goes; nothing where the program was built without.
#[cfg(feature = "otel")]
type Traces = Option<traces::Traces>;
#[cfg(not(feature = "otel"))]
type Traces = ();

/// Logs go to standard error: warnings, or what `--log`, `-v` or `OMNIBURN_LOG` ask for. Spans go to the collector, where one is
/// named.
fn start_logs(args: &LogArgs, endpoint: Option<&str>) -> Result<Traces, Failure> {
    let ours = |level: &str| format!("warn,omniburn={level}");
    let wanted = match (&args.log, args.verbose) {
        (Some(level), _) if level.parse::<tracing::Level>().is_ok() => ours(level),
        (Some(filter), _) => filter.clone(),
        (None, 0) => std::env::var("OMNIBURN_LOG").unwrap_or_else(|_| "warn,rmcp=error".into()),
        (None, 1) => ours("info"),
        (None, _) => ours("debug"),
    };
    let filter = EnvFilter::try_new(&wanted)
        .map_err(|e| Failure::usage(format!("log level `{wanted}`: {e}; expected one such as info or debug")))?;
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(io::IsTerminal::is_terminal(&io::stderr()))
        .log_internal_errors(false)
        .with_filter(filter);
    listen(tracing_subscriber::registry().with(lines), endpoint)
}

/// Sets what listens. That fails only where something listens already, and then logs go there.
#[cfg(feature = "otel")]
fn listen<S>(lines: S, endpoint: Option<&str>) -> Result<Traces, Failure>
where
    S: tracing::Subscriber + for<'span> tracing_subscriber::registry::LookupSpan<'span> + Send + Sync,
{
    let Some((spans, traces)) = endpoint.map(traces::layer).transpose()? else {
        let _ = tracing::subscriber::set_global_default(lines);
        return Ok(None);
    };
    let _ = tracing::subscriber::set_global_default(lines.with(spans));
    Ok(Some(traces))
}

/// Sets what listens. That fails only where something listens already, and then logs go there.
#[cfg(not(feature = "otel"))]
fn listen(lines: impl tracing::Subscriber + Send + Sync, endpoint: Option<&str>) -> Result<Traces, Failure> {
    if endpoint.is_some() {
        return Err(Failure::usage("--otlp-endpoint: this program was built without the feature `otel`"));
    }
    let _ = tracing::subscriber::set_global_default(lines);
    Ok(())
}
