//! `omniburn mcp`: tools for agents on standard input and output.

use std::net::{Ipv4Addr, SocketAddr};

use omniburn_server::{Options, ServeError, Stop, serve_stdio};
use serde_json::{Value, json};

use super::serve::{index, models};
use crate::failure::{DONE, Failure, Outcome, USAGE};
use crate::interrupt::on_interrupt;
use crate::output::write_stdout;
use crate::serve_args::{McpArgs, McpClient, McpCommand};

/// Answers until the input ends, or prints settings.
///
/// # Errors
/// A usage failure, a refused record or index, or a device that cannot be used.
pub fn run(args: &McpArgs) -> Outcome {
    if let Some(McpCommand::Config { client }) = args.command {
        return config(client);
    }
    let models = models(&args.model, &args.compute)?;
    let index = index(args.index.as_deref(), args.model.first(), !args.no_refresh, &models[0].names[0])?;
    // Nothing listens: the address is not used.
    let options = Options { index, ..Options::new(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), models) };
    let stop = Stop::new();
    let stopping = stop.clone();
    on_interrupt(move || stopping.stop());
    match serve_stdio(options, &stop) {
        Ok(()) => Ok(DONE),
        Err(ServeError::Model(error)) => Err(error.into()),
        Err(ServeError::Index(error)) => Err(error.into()),
        Err(error) => Err(Failure::with_code(USAGE, error)),
    }
}

/// Settings with the place of this program.
fn config(client: McpClient) -> Outcome {
    let program = std::env::current_exe().map_or_else(|_| "omniburn".into(), |path| path.display().to_string());
    let start = json!({"command": program, "args": ["mcp"]});
    let (file, settings): (&str, Value) = match client {
        McpClient::Claude => {
            ("claude_desktop_config.json, or .mcp.json of a project", json!({"mcpServers": {"omniburn": start}}))
        }
        McpClient::Cursor => (".cursor/mcp.json", json!({"mcpServers": {"omniburn": start}})),
        McpClient::Vscode => (".vscode/mcp.json", json!({"servers": {"omniburn": start}})),
        McpClient::Zed => ("settings.json", json!({"context_servers": {"omniburn": start}})),
    };
    crate::progress::say(format_args!("for {file}:"));
    let text = serde_json::to_string_pretty(&settings).expect("plain data always serialises") + "\n";
    write_stdout(text.as_bytes())?;
    Ok(DONE)
}
