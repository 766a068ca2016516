//! A message: who wrote to whom, what about, and its text. What is attached is not entered.

use mail_parser::{Address, MessageParser};

use super::html;
use super::section::Text;
use crate::error::Fault;

/// The text of a message.
pub(super) fn text_of(bytes: &[u8]) -> Result<Text, Fault> {
    let message = MessageParser::default().parse(bytes);
    let message = message.filter(|message| message.from().is_some() || message.subject().is_some());
    let message = message.ok_or_else(|| Fault::new("corrupt", "found no headers of a message"))?;
    let mut text = String::new();
    let subject = message.subject().map(str::to_string);
    for (name, value) in
        [("From", message.from().map(people)), ("To", message.to().map(people)), ("Subject", subject.clone())]
    {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            text.push_str(&format!("{name}: {value}\n"));
        }
    }
    if let Some(date) = message.date() {
        text.push_str(&format!("Date: {}\n", date.to_rfc3339()));
    }
    text.push('\n');
    for part in 0..message.text_body_count() {
        let is_html = message.text_part(part as u32).is_some_and(|part| part.is_text_html());
        let body = if is_html {
            message
                .body_html(part)
                .map(|page| html::text_of(&page).sections.into_iter().map(|s| s.text).collect::<String>())
        } else {
            message.body_text(part).map(|body| body.replace("\r\n", "\n"))
        };
        text.push_str(&body.unwrap_or_default());
        text.push('\n');
    }
    for attached in message.attachments() {
        if let Some(name) = mail_parser::MimeHeaders::attachment_name(attached) {
            text.push_str(&format!("Attached: {name}\n"));
        }
    }
    Ok(Text::of(subject, text))
}

fn people(address: &Address<'_>) -> String {
    let one = |one: &mail_parser::Addr<'_>| match (&one.name, &one.address) {
        (Some(name), Some(address)) => format!("{name} <{address}>"),
        (Some(only), None) | (None, Some(only)) => only.to_string(),
        (None, None) => String::new(),
    };
    address.iter().map(one).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_its_headers_and_its_text() {
        let message = b"From: Ann <ann@example.org>\r\nTo: bob@example.org\r\nSubject: =?utf-8?q?Caf=C3=A9?= receipt\r\nDate: Sat, 3 Jan 2026 10:00:00 +0000\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\nThe bicycle =\r\nshop wrote.\r\n";
        let text = text_of(message).unwrap();
        assert_eq!(text.title.as_deref(), Some("Café receipt"));
        let body = &text.sections[0].text;
        assert!(body.contains("From: Ann <ann@example.org>") && body.contains("The bicycle shop wrote."), "{body}");
    }

    #[test]
    fn what_is_no_message_is_named() {
        assert_eq!(text_of(b"just words").unwrap_err().kind, "corrupt");
        assert_eq!(text_of(b"").unwrap_err().kind, "corrupt");
    }
}
