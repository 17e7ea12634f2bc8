//! Label selectors as `kubectl get --selector` takes them: `app=checkout`, `tier in (web, api)`, `!canary`, with commas
//! between them; all must hold. As in Kubernetes, `!=` and `notin` hold for who has no such label at all.

use std::collections::BTreeMap;
use std::fmt;

use thiserror::Error;

/// Of a label's key, with its prefix.
const KEY: usize = 253 + 1 + 63;
const VALUE: usize = 63;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Selector {
    requirements: Vec<Requirement>,
    text: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Requirement {
    key: String,
    holds: Holds,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Holds {
    There,
    Missing,
    In(Vec<String>),
    NotIn(Vec<String>),
}

#[derive(Debug, PartialEq, Eq, Error)]
pub enum SelectorError {
    #[error("`{0}`: write key=value, key!=value, key in (a, b), key notin (a, b), key or !key")]
    Requirement(String),
    #[error("`{0}` is no key of a label")]
    Key(String),
    #[error("`{0}` is no value of a label")]
    Value(String),
}

impl Selector {
    pub(crate) fn parse(text: &str) -> Result<Self, SelectorError> {
        let requirements = split(text).into_iter().map(requirement).collect::<Result<_, _>>()?;
        Ok(Self { requirements, text: text.trim().to_owned() })
    }

    pub(crate) fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.requirements.iter().all(|Requirement { key, holds }| {
            let value = labels.get(key);
            match holds {
                Holds::There => value.is_some(),
                Holds::Missing => value.is_none(),
                Holds::In(values) => value.is_some_and(|value| values.contains(value)),
                Holds::NotIn(values) => !value.is_some_and(|value| values.contains(value)),
            }
        })
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// At the commas that are in no parentheses.
fn split(text: &str) -> Vec<&str> {
    let mut inside = false;
    text.split(|c: char| {
        inside = if inside { c != ')' } else { c == '(' };
        c == ',' && !inside
    })
    .map(str::trim)
    .collect()
}

fn requirement(text: &str) -> Result<Requirement, SelectorError> {
    let wrong = || SelectorError::Requirement(text.to_owned());
    if let Some(key) = text.strip_prefix('!') {
        return Ok(Requirement { key: checked_key(key)?, holds: Holds::Missing });
    }
    if let Some((key, value)) = text.split_once('=') {
        let (key, is) = match key.strip_suffix('!') {
            Some(key) => (key, false),
            None => (key, true),
        };
        let values = vec![checked_value(value.strip_prefix('=').unwrap_or(value))?];
        let holds = if is { Holds::In(values) } else { Holds::NotIn(values) };
        return Ok(Requirement { key: checked_key(key)?, holds });
    }
    if let Some((before, list)) = text.split_once('(') {
        let (key, word) = before.trim_end().rsplit_once(char::is_whitespace).ok_or_else(wrong)?;
        let list = list.trim_end().strip_suffix(')').ok_or_else(wrong)?;
        let values = list.split(',').map(checked_value).collect::<Result<_, _>>()?;
        let holds = match word {
            "in" => Holds::In(values),
            "notin" => Holds::NotIn(values),
            _ => return Err(wrong()),
        };
        return Ok(Requirement { key: checked_key(key)?, holds });
    }
    if text.is_empty() || text.contains(char::is_whitespace) {
        return Err(wrong());
    }
    Ok(Requirement { key: checked_key(text)?, holds: Holds::There })
}

fn checked_key(key: &str) -> Result<String, SelectorError> {
    let key = key.trim();
    let (prefix, name) = key.rsplit_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
    let right = key.len() <= KEY && is_name(name) && prefix.is_none_or(is_name);
    if right { Ok(key.to_owned()) } else { Err(SelectorError::Key(key.to_owned())) }
}

fn checked_value(value: &str) -> Result<String, SelectorError> {
    let value = value.trim();
    let right = value.len() <= VALUE && (value.is_empty() || is_name(value));
    if right { Ok(value.to_owned()) } else { Err(SelectorError::Value(value.to_owned())) }
}

fn is_name(text: &str) -> bool {
    let ends = [text.bytes().next(), text.bytes().last()];
    ends.iter().all(|end| end.is_some_and(|byte| byte.is_ascii_alphanumeric()))
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn as_kubectl_selects() {
        let web = labels(&[("app", "checkout"), ("tier", "web"), ("example.org/team", "a"), ("empty", "")]);
        for (text, holds) in [
            ("app=checkout", true),
            ("app == checkout", true),
            ("app=cart", false),
            ("app!=cart", true),
            ("gone!=cart", true),
            ("app!=checkout", false),
            ("tier in (web, api)", true),
            ("tier in (api)", false),
            ("gone in (api)", false),
            ("tier notin (api,batch)", true),
            ("gone notin (api)", true),
            ("tier notin (web)", false),
            ("app", true),
            ("!app", false),
            ("gone", false),
            ("! gone", true),
            ("empty=", true),
            ("app=", false),
            ("example.org/team=a,app=checkout,tier in (web,api),!canary", true),
            ("app=checkout,tier in (batch,api)", false),
        ] {
            assert_eq!(Selector::parse(text).unwrap().matches(&web), holds, "{text}");
        }
    }

    #[test]
    fn what_is_none_says_why() {
        for odd in [
            "",
            ",",
            "app=checkout,",
            "a b",
            "app in web",
            "app in (web",
            "app of (web)",
            "(web)",
            "=x",
            "a/b/=x",
            "-a=b",
            "a=b c",
            "a=ü",
            "a=(b)",
            "a>3",
            "!",
            "in (a)",
        ] {
            assert!(Selector::parse(odd).is_err(), "{odd:?}");
        }
        let long = "x".repeat(400);
        assert!(Selector::parse(&long).is_err() && Selector::parse(&format!("a={long}")).is_err());
    }
}
