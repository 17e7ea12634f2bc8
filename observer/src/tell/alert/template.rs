//! Bodies of webhooks: our document, what the common chat tools take, and a template of one's own.
//!
//! Pure. Whatever came from a target is data in every one of them: JSON strings are escaped, markup is, and nobody is
//! mentioned by a function that is called `@channel`.

use serde_json::{Value, json};

use super::message::{Notification, Phase};

/// What the body looks like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Template {
    /// Our own document, `observer.alert/1`.
    Json,
    Slack,
    Discord,
    /// An adaptive card, as the workflows of Microsoft Teams take it.
    Teams,
    Mattermost,
    /// JSON with `{{placeholders}}` inside its strings.
    Custom(String),
}

/// Discord refuses more than 2,000 characters; a code block and the summary need some.
const DISCORD: usize = 1_700;

/// The body of the request.
pub(super) fn body(template: &Template, told: &Notification) -> String {
    match template {
        Template::Json => serde_json::to_string(told).unwrap_or_default(),
        Template::Slack => slack(told).to_string(),
        Template::Discord => discord(told).to_string(),
        Template::Teams => teams(told).to_string(),
        Template::Mattermost => mattermost(told).to_string(),
        Template::Custom(text) => custom(text, told).unwrap_or_default(),
    }
}

/// `FIRING warning: checkout leaks …`
fn title(told: &Notification) -> String {
    let word = match told.phase {
        Phase::Start => "FIRING",
        Phase::Repeat => "STILL FIRING",
        Phase::End => return format!("RESOLVED: {}", told.summary),
    };
    format!("{word} ({}): {}", told.severity.name(), told.summary)
}

fn slack(told: &Notification) -> Value {
    // Slack's own rule: these three, and no other character, are markup.
    let plain = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    // All in a block: outside of it a `(*Quoter)` begins bold text.
    let block = plain(&fenced(&format!("{}\n{}", title(told), told.text)));
    let text = format!("```\n{block}\n```{}", plain(&link(told)));
    json!({ "text": text, "unfurl_links": false })
}

fn mattermost(told: &Notification) -> Value {
    json!({ "text": format!("```\n{}\n{}\n```{}", fenced(&title(told)), fenced(&told.text), link(told)) })
}

fn discord(told: &Notification) -> Value {
    let block: String =
        format!("{}\n{}", fenced(&title(told)), fenced(&told.text)).chars().take(DISCORD).collect();
    let content = format!("```\n{block}\n```{}", link(told));
    json!({ "content": content, "allowed_mentions": { "parse": [] } })
}

fn teams(told: &Notification) -> Value {
    let color = match told.phase {
        Phase::End => "Good",
        _ => "Attention",
    };
    let mut card = json!({
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "body": [
            { "type": "TextBlock", "text": unmarked(&title(told)), "weight": "Bolder", "wrap": true, "color": color },
            // An empty line between: a single end of line is a space in a text block.
            { "type": "TextBlock", "text": unmarked(&told.text).replace('\n', "\n\n"), "wrap": true,
              "fontType": "Monospace" },
        ],
    });
    if !told.url.is_empty()
        && let Some(card) = card.as_object_mut()
    {
        let action = json!([{ "type": "Action.OpenUrl", "title": "Open", "url": told.url }]);
        card.insert("actions".to_owned(), action);
    }
    json!({
        "type": "message",
        "attachments": [{ "contentType": "application/vnd.microsoft.card.adaptive", "content": card }],
    })
}

fn link(told: &Notification) -> String {
    if told.url.is_empty() { String::new() } else { format!("\n{}", told.url) }
}

/// Nothing in it ends the code block around it.
fn fenced(text: &str) -> String {
    text.replace('`', "'")
}

/// Markdown that is shown and not obeyed.
fn unmarked(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '\\' | '*' | '_' | '[' | ']' | '`' | '#' | '<' | '>' | '~') {
            plain.push('\\');
        }
        plain.push(c);
    }
    plain
}

/// What stands for `{{name}}`; absent when there is no such name.
fn placeholder(name: &str, told: &Notification) -> Option<String> {
    let blamed = |value: fn(&super::message::CulpritSummary) -> String| {
        told.culprit.as_ref().map(value).unwrap_or_default()
    };
    Some(match name {
        "id" => told.id.clone(),
        "phase" => told.phase.name().to_owned(),
        "status" => if told.phase == Phase::End { "resolved" } else { "firing" }.to_owned(),
        "alert" => told.alert.name().to_owned(),
        "severity" => told.severity.name().to_owned(),
        "title" => title(told),
        "summary" => told.summary.clone(),
        "text" => told.text.clone(),
        "target" => told.target.name.clone(),
        "pid" => told.target.pid.to_string(),
        "exe" => told.target.exe.clone(),
        "pod" => told.target.pod.clone().unwrap_or_default(),
        "namespace" => told.target.namespace.clone().unwrap_or_default(),
        "container" => told.target.container.clone().unwrap_or_default(),
        "node" => told.target.node.clone().unwrap_or_default(),
        "site" => blamed(|b| b.site.clone()),
        "function" => blamed(|b| b.function.clone()),
        "file" => blamed(|b| b.file.clone().unwrap_or_default()),
        "line" => blamed(|b| b.line.map(|line| line.to_string()).unwrap_or_default()),
        "stack_id" => blamed(|b| b.stack_id.clone()),
        "members" => blamed(|b| b.members.to_string()),
        "growth_bytes_per_second" => format!("{:.0}", told.memory.growth_bytes_per_second),
        "resident_bytes" => told.memory.resident_bytes.to_string(),
        "url" => told.url.clone(),
        "at" => told.at.clone(),
        "started_at" => told.started_at.clone(),
        "ended_at" => told.ended_at.clone().unwrap_or_default(),
        _ => return None,
    })
}

/// Fills in a template of one's own; the values are escaped as the inside of a JSON string.
fn custom(text: &str, told: &Notification) -> Result<String, String> {
    let mut filled = String::with_capacity(text.len());
    let mut left = text;
    while let Some((before, rest)) = left.split_once("{{") {
        let (name, after) = rest.split_once("}}").ok_or_else(|| "a `{{` without its `}}`".to_owned())?;
        let value = placeholder(name.trim(), told)
            .ok_or_else(|| format!("there is no placeholder `{{{{{}}}}}`", name.trim().escape_debug()))?;
        let quoted = Value::String(value).to_string();
        filled.push_str(before);
        let inside = quoted.strip_prefix('"').and_then(|quoted| quoted.strip_suffix('"'));
        filled.push_str(inside.unwrap_or_default());
        left = after;
    }
    filled.push_str(left);
    Ok(filled)
}

/// Whether a template gives JSON, tried on a notification that has everything odd in it.
pub(super) fn check(text: &str) -> Result<(), String> {
    let filled = custom(text, &super::example::example())?;
    serde_json::from_str::<serde::de::IgnoredAny>(&filled)
        .map(drop)
        .map_err(|error| format!("filled in it is no JSON: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tell::alert::example::example;

    #[test]
    fn every_body_is_json_whatever_the_names_are() {
        let told = example();
        for template in
            [Template::Json, Template::Slack, Template::Discord, Template::Teams, Template::Mattermost]
        {
            let body = body(&template, &told);
            serde_json::from_str::<Value>(&body)
                .unwrap_or_else(|error| panic!("{template:?}: {error}\n{body}"));
        }
    }

    #[test]
    fn names_of_a_target_are_no_markup() {
        let mut told = example();
        told.summary = "<!channel> ``` @everyone *bold* & _x_".to_owned();
        told.text = "```\n<script>".to_owned();
        let slack = slack(&told)["text"].as_str().unwrap().to_owned();
        assert!(!slack.contains("<!channel>") && slack.contains("&lt;!channel&gt;"), "{slack}");
        assert_eq!(slack.matches("```").count(), 2);
        let said = discord(&told);
        assert_eq!(said["content"].as_str().unwrap().matches("```").count(), 2);
        assert_eq!(said["allowed_mentions"]["parse"], json!([]));
        assert_eq!(mattermost(&told)["text"].as_str().unwrap().matches("```").count(), 2);
        let card = &teams(&told)["attachments"][0]["content"];
        assert!(card["body"][0]["text"].as_str().unwrap().contains("\\*bold\\*"));
        assert_eq!(card["actions"][0]["url"], told.url);
    }

    #[test]
    fn discord_takes_two_thousand_characters() {
        let mut told = example();
        told.text = "é".repeat(5_000);
        assert!(discord(&told)["content"].as_str().unwrap().chars().count() <= 2_000);
    }

    #[test]
    fn a_template_of_ones_own_is_filled_and_escaped() {
        let mut told = example();
        told.summary = "a \\name\nthat ends in \"".to_owned();
        let text = r#"{"event": "{{ status }}", "what": "{{summary}}", "n": {{line}}}"#;
        let filled: Value = serde_json::from_str(&custom(text, &told).unwrap()).unwrap();
        assert_eq!(filled["what"], told.summary);
        assert_eq!(filled["event"], "firing");
        assert_eq!(filled["n"], 41);
        check(text).unwrap();
    }

    #[test]
    fn a_wrong_template_is_named() {
        assert!(check("{\"a\": \"{{summry}}\"}").unwrap_err().contains("summry"));
        assert!(check("{\"a\": \"{{summary\"}").unwrap_err().contains("without"));
        assert!(check("{{summary}}").unwrap_err().contains("no JSON"));
    }
}
