//! The page: `/` for all targets, `/targets/{target}` for one, rendered here and made live by a small script.
//!
//! Reads the board; gives HTML that is whole without the script. Nothing it names lies on another machine, and its
//! policy forbids the browser to fetch any such thing. Costs some milliseconds a page, on a thread of its own kind.

mod assets;
mod facts;
mod group;
mod overview;
mod shell;
mod target;
mod view;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use maud::html;
use tokio::sync::Semaphore;

use super::shown::Shown;
use crate::board::Board;
pub use assets::{MARK, SCRIPT, STYLE};
pub use shell::moment;
pub use target::{main as target_main, title as target_title};
pub use view::{MOMENTS, Place, Range, View, named};

/// What the page may do: load what this server has, run and style by its own files, frame its flame graphs.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      frame-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// The script says which version it shows, and gets the next one when there is one.
const AFTER: &str = "x-observer-after";
/// As long as an answer waits for a next version: short, so that a shutdown does not wait for it.
const WAIT: Duration = Duration::from_millis(2_500);

/// `/`, `/targets/{target}` and what they need.
pub fn routes() -> Router<Arc<Shown>> {
    Router::new()
        .route("/", get(all))
        .route("/targets/{target}", get(one))
        .route("/assets/page.css", get(|| async { asset("text/css; charset=utf-8", STYLE) }))
        .route("/assets/page.js", get(|| async { asset("text/javascript; charset=utf-8", SCRIPT) }))
        .route("/assets/icon.svg", get(|| async { asset("image/svg+xml", assets::ICON) }))
}

async fn all(State(shown): State<Arc<Shown>>, headers: HeaderMap) -> Response {
    if !next_version(&shown.board, &headers, || all_version(&shown.board)).await {
        return StatusCode::NO_CONTENT.into_response();
    }
    rendered(move || Some(all_page(&shown.board))).await
}

async fn one(
    State(shown): State<Arc<Shown>>,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    if !next_version(&shown.board, &headers, || one_version(&shown.board, &name)).await {
        return StatusCode::NO_CONTENT.into_response();
    }
    let range = Range::of_query(query.as_deref().unwrap_or_default());
    rendered(move || one_page(&shown.board, &name, range)).await
}

/// Answers that wait at a time; whoever comes beyond that asks again instead. Waiting costs a place among the requests
/// that are answered, which scrapers need too.
static WAITING: Semaphore = Semaphore::const_new(16);

/// True as soon as there is something else to show than the asker has.
async fn next_version(board: &Board, headers: &HeaderMap, version: impl Fn() -> String) -> bool {
    let Some(after) = headers.get(AFTER).and_then(|value| value.to_str().ok()) else { return true };
    let Ok(_place) = WAITING.try_acquire() else { return version() != after };
    let mut changes = board.subscribe();
    let changed = async {
        loop {
            changes.mark_unchanged();
            if version() != after || changes.changed().await.is_err() {
                return;
            }
        }
    };
    tokio::time::timeout(WAIT, changed).await.is_ok()
}

fn all_version(board: &Board) -> String {
    board.subscribe().borrow().to_string()
}

fn one_version(board: &Board, name: &str) -> String {
    board.target(name).map_or_else(
        || "none".to_owned(),
        |state| format!("{:.3}-{}-{}", state.last_sampled, state.up, state.restarts),
    )
}

fn all_page(board: &Board) -> (StatusCode, String) {
    let version = all_version(board);
    let views: Vec<View> = board
        .targets()
        .iter()
        .map(|state| View::of_target(state, ".", Range::Hour, view::FEW_MOMENTS))
        .collect();
    let around = overview::Around { awaited: board.awaited(), ready: board.ready() };
    let title = overview::title(&views);
    let page = shell::Page { title, root: ".", version, crumb: None, main: overview::main(views, &around) };
    (StatusCode::OK, page.write())
}

fn one_page(board: &Board, name: &str, range: Range) -> Option<(StatusCode, String)> {
    let version = one_version(board, name);
    let state = board.target(name)?;
    let view = View::of_target(&state, "..", range, MOMENTS);
    let page = shell::Page {
        title: target::title(&view),
        root: "..",
        version,
        crumb: Some(name),
        main: target::main(&view),
    };
    Some((StatusCode::OK, page.write()))
}

fn missing() -> (StatusCode, String) {
    let main = html! {
        h1 class="summary" { "No such target" }
        p { "It is not observed, or is forgotten since it went away. " a href="../" { "All targets" } }
    };
    let page = shell::Page {
        title: "No such target · observer".to_owned(),
        root: "..",
        version: "none".to_owned(),
        crumb: None,
        main,
    };
    (StatusCode::NOT_FOUND, page.write())
}

/// Drawing takes a while: not on the thread that serves the others.
async fn rendered(render: impl FnOnce() -> Option<(StatusCode, String)> + Send + 'static) -> Response {
    let Ok(page) = tokio::task::spawn_blocking(render).await else {
        return (StatusCode::INTERNAL_SERVER_ERROR, "rendering the page failed; see observer's log\n")
            .into_response();
    };
    let (status, page) = page.unwrap_or_else(missing);
    let headers: [(HeaderName, &str); 5] = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CACHE_CONTROL, "no-store"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    (status, headers, page).into_response()
}

/// The address holds the version, so it never changes under the same one.
fn asset(kind: &'static str, text: &'static str) -> Response {
    let headers: [(HeaderName, &str); 2] =
        [(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "public, max-age=31536000, immutable")];
    (headers, text).into_response()
}
