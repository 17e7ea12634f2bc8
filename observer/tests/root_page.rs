//! The page in a real Chromium: it shows, leads, lives and keeps to itself.

#[path = "support/browser.rs"]
mod browser;
#[path = "simulate/cases.rs"]
mod cases;
#[path = "support/scenes.rs"]
mod scenes;
#[path = "simulate/service.rs"]
mod service;
#[path = "support/shown.rs"]
mod shown;

use browser::Browser;
use observer::tell::board::TargetState;
use observer::tell::report::html;
use shown::{Site, state};

const TAB: &str = "\u{e004}";
const ENTER: &str = "\u{e007}";

fn with(targets: Vec<TargetState>) -> Site {
    let site = Site::start(|_| {});
    for old in site.shown.board.targets() {
        site.shown.board.forget(&old.name);
    }
    for target in targets {
        site.shown.board.publish(target);
    }
    site
}

/// In light and dark, on a desk and on a phone: nothing sticks out, nobody complains.
fn look(browser: &Browser, name: &str) {
    browser.until("return document.readyState === 'complete'");
    for (scheme, width) in [("light", 1280), ("dark", 1280), ("light", 360), ("dark", 360)] {
        browser.scheme(scheme);
        browser.size(width, 800);
        let shot = browser.screenshot(&format!("{name}-{scheme}-{width}"));
        // What sticks out, by name.
        let out = browser.run(
            "const width = document.documentElement.clientWidth; \
             if (document.documentElement.scrollWidth <= width) return ''; \
             return [...document.querySelectorAll('body *')] \
                 .filter((e) => e.getBoundingClientRect().right > width + .5) \
                 .map((e) => e.nodeName + '.' + e.getAttribute('class')).join(' ')",
        );
        assert_eq!(out, "", "{name} scrolls sideways: {}", shot.display());
    }
    browser.scheme("light");
    browser.size(1280, 800);
    println!("{:?} {name}", browser.complaints());
}

#[test]
#[ignore = "needs root"]
fn every_state_of_a_target_can_be_read() {
    let browser = Browser::start();
    let site = with(vec![
        scenes::full("checkout", scenes::leak(900.0)),
        scenes::long("nightly"),
        state("stable", &scenes::healthy(900.0, 4)),
        state("growing", &scenes::growing(600.0)),
        state("new", &scenes::healthy(5.0, 4)),
        TargetState { up: false, ..state("gone", &scenes::leak(200.0)) },
    ]);
    let root = format!("http://{}", site.address);
    for name in ["checkout", "nightly", "stable", "growing", "new", "gone"] {
        browser.open(&format!("{root}/targets/{name}{}", if name == "nightly" { "?range=all" } else { "" }));
        look(&browser, name);
    }
    browser.open(&format!("{root}/"));
    look(&browser, "all");
    let many = with(scenes::fifty());
    many.shown
        .board
        .set_awaited(vec!["exe /usr/bin/indexer".into(), "cgroup /system.slice/*.service".into()]);
    browser.open(&format!("http://{}/", many.address));
    look(&browser, "fifty");
    let none = with(Vec::new());
    none.shown.board.set_awaited(vec!["comm checkout".into()]);
    browser.open(&format!("http://{}/", none.address));
    look(&browser, "none");
    browser.open(&format!("http://{}/targets/whoever", none.address));
    browser.until("return document.body.innerText.includes('No such target')");
}

#[test]
#[ignore = "needs root"]
fn one_file_is_the_same_page() {
    let browser = Browser::start();
    let target = scenes::full("checkout", scenes::leak(900.0));
    let text = html::diagnosis(&target.diagnosis, &target.timeline(), &target.sample, target.last_sampled);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("report.html");
    std::fs::write(&path, &text).unwrap();
    println!("{} KiB", text.len() / 1024);
    // What the browser itself asked for at its start.
    browser.open("about:blank");
    browser.requests();
    browser.open(&format!("file://{}", path.display()));
    look(&browser, "file");
    let mut asked = browser.requests();
    asked.retain(|url| !url.starts_with("file://") && !url.starts_with("data:"));
    assert_eq!(asked, Vec::<String>::new());
    let _ = (TAB, ENTER);
}
