//! The page of a target as one file, to attach to an incident: style, script, picture and flame graphs within.
//!
//! The same page that the daemon serves, from a diagnosis and what led to it. Opens without a network: its policy
//! forbids the browser to fetch anything. Some 100 KB, more with large flame graphs.

use std::fmt::Write as _;
use std::sync::Arc;

use maud::{DOCTYPE, PreEscaped, html};

use super::svg;
use crate::diagnose::Diagnosis;
use crate::escape::escape;
use crate::sample::Sample;
use crate::tell::web::page::{self, Place, View, named};
use crate::timeline::Timeline;

/// Only what is in the file. The flame graphs bring a script of their own and live in frames without rights.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; \
                      frame-src data:; base-uri 'none'; form-action 'none'";
/// A flame graph larger than this is left out: the file is to be sent by mail.
const FLAMES: usize = 4 << 20;

/// The file. `sample` is the last one, `written_at` in unix seconds.
pub fn diagnosis(diagnosis: &Diagnosis, timeline: &Timeline, sample: &Sample, written_at: f64) -> String {
    let points = timeline.points(f64::NEG_INFINITY, page::MOMENTS);
    let groups = named(&points, timeline);
    let name = &diagnosis.target.comm;
    let mut view = View::new(name, &points, &groups, &Arc::new(sample.clone()), &Arc::new(diagnosis.clone()));
    let blocked = svg::svg(&sample.groups, &format!("{name}: blocked"));
    let sites = sample.growth.as_ref().map(|growth| growth.sites.as_slice()).unwrap_or_default();
    let growth = svg::growth(sites, &format!("{name}: growth"));
    view.place = Place::File { blocked: blocked.ok().and_then(framed), growth: growth.ok().and_then(framed) };
    let main = page::target_main(&view);
    let file = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (escape(&page::target_title(&view))) }
                style { (PreEscaped(page::STYLE)) }
            }
            body {
                header class="top" {
                    span class="brand" { (PreEscaped(page::MARK)) "observer" }
                    span class="crumb" aria-hidden="true" { "/" }
                    span class="crumb name" { (escape(name)) }
                }
                main id="main" tabindex="-1" { (main) }
                footer { "observer " (env!("CARGO_PKG_VERSION")) " · written " (page::moment(written_at)) }
                script { (PreEscaped(page::SCRIPT)) }
            }
        }
    };
    file.into_string()
}

/// A drawing as an address that holds it.
fn framed(svg: Vec<u8>) -> Option<String> {
    if svg.len() > FLAMES {
        return None;
    }
    let mut address = String::with_capacity(svg.len() * 3 / 2);
    address.push_str("data:image/svg+xml;charset=utf-8,");
    for byte in svg {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => address.push(char::from(byte)),
            b'-' | b'_' | b'.' | b'!' | b'~' | b'*' | b'(' | b')' | b'/' | b':' | b';' | b'=' | b','
            | b'\'' => {
                address.push(char::from(byte));
            }
            byte => {
                let _ = write!(address, "%{byte:02X}");
            }
        }
    }
    Some(address)
}
