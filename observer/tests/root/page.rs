//! The page in a real Chromium: it shows, leads, lives and keeps to itself.

use observer::board::TargetState;
use observer::tell::report::html;

use crate::programs::browser::Browser;
use crate::support::scenes;
use crate::support::shown::{Site, state};

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
    assert_eq!(browser.complaints(), Vec::<String>::new(), "{name}");
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
        state("two", &scenes::case("two leaks")),
        state("companions", &scenes::case("waiting parent")),
        scenes::without_ebpf("threads"),
    ]);
    let root = format!("http://{}", site.address);
    for name in ["checkout", "nightly", "stable", "growing", "new", "gone", "two", "companions", "threads"] {
        browser.open(&format!("{root}/targets/{name}{}", if name == "nightly" { "?range=all" } else { "" }));
        look(&browser, name);
    }
    browser.open(&format!("{root}/targets/checkout"));
    flames(&browser);
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
    flames(&browser);
    let mut asked = browser.requests();
    asked.retain(|url| !url.starts_with("file://") && !url.starts_with("data:"));
    assert_eq!(asked, Vec::<String>::new());
}

/// The flame graphs are drawn, live in frames without rights, and zoom.
fn flames(browser: &Browser) {
    browser.run("document.querySelectorAll('.flames details').forEach((details) => { details.open = true })");
    browser.run("document.querySelector('.flames').scrollIntoView()");
    let frames = browser.run("return document.querySelectorAll('.flames iframe').length").as_u64().unwrap();
    assert_eq!(frames, 2, "blocked and growth");
    for (frame, name) in [(0, "checkout.(*Quoter).fetch"), (1, "checkout.(*Quoter).Get")] {
        browser.enter(Some(frame));
        let find = format!(
            "return [...document.querySelectorAll('#frames g')].find((g) => g.textContent.includes({name:?}))"
        );
        browser.until(&format!("{find} !== undefined"));
        browser.run(&format!(
            "{} .querySelector('rect').dispatchEvent(new MouseEvent('click', {{bubbles: true}}))",
            find.trim_start_matches("return ")
        ));
        browser.until("return !document.getElementById('unzoom').classList.contains('hide')");
        assert_eq!(
            browser.run("try { return parent.document.title } catch { return 'kept out' }"),
            "kept out"
        );
        browser.enter(None);
    }
}

/// The middle of what a selector finds, in the window.
fn middle(browser: &Browser, selector: &str) -> (f64, f64) {
    let place = browser.until(&format!(
        "const found = document.querySelector({selector:?}); if (!found) return null; \
         found.scrollIntoView({{block: 'center'}}); const box = found.getBoundingClientRect(); \
         return [box.x + box.width * .8, box.y + box.height * .9]"
    ));
    (place[0].as_f64().unwrap(), place[1].as_f64().unwrap())
}

#[test]
#[ignore = "needs root"]
fn the_culprit_is_seen_and_its_area_leads_to_its_stack() {
    let browser = Browser::start();
    let site =
        with(vec![state("checkout", &scenes::leak(300.0)), state("stable", &scenes::healthy(120.0, 4))]);
    let root = format!("http://{}", site.address);
    browser.open(&format!("{root}/"));
    let card = browser.until("return document.querySelector('.card.leak').innerText");
    let card = card.as_str().unwrap();
    assert!(
        card.contains("LEAK") && card.contains("checkout.(*Quoter).fetch") && card.contains("checkout.go:41"),
        "{card}"
    );
    assert!(browser.run("return document.title").as_str().unwrap().starts_with("LEAK"));
    browser.run("document.querySelector('.card.leak a.name').click()");
    browser.until("return document.querySelector('#sentence')");
    // What is seen without scrolling: the sentence with function, file and line.
    let sentence = browser.run("return document.querySelector('#sentence').innerText");
    let sentence = sentence.as_str().unwrap();
    assert!(sentence.contains("checkout.(*Quoter).fetch checkout.go:41"), "{sentence}");
    let line = browser.run("return document.querySelector('.culprit .stack .own .position').innerText");
    assert_eq!(line, "checkout.go:41");

    // By pointer.
    let (x, y) = middle(&browser, "svg.chart.wide a:has(.culprit-0)");
    browser.click(x, y);
    let at = browser.until("return location.hash");
    assert!(at.as_str().unwrap().starts_with("#group-"), "{at}");
    let focus = "return document.activeElement.matches('.culprit') && document.activeElement.id === location.hash.slice(1)";
    browser.until(focus);
    let seen = "const box = document.activeElement.getBoundingClientRect(); return box.top < innerHeight && box.bottom > 0";
    browser.until(seen);

    // By keyboard: to a steady group, whose row unfolds.
    browser.open(&format!("{root}/targets/stable"));
    browser.until("return document.querySelector('svg.chart.wide a .steady-0')");
    let steady = "return !!document.activeElement.closest('svg.chart a')";
    for _ in 0..20 {
        browser.press(TAB);
        if browser.run(steady) == true {
            break;
        }
    }
    assert_eq!(browser.run(steady), true, "no area can be reached by Tab");
    let name = browser.run("return document.activeElement.getAttribute('aria-label')");
    assert!(name.as_str().unwrap().contains(" × "), "{name}");
    browser.press(ENTER);
    browser.until("const row = document.querySelector(location.hash || 'none'); return row && row.closest('details').open");
    browser.until("return document.activeElement.id === location.hash.slice(1)");
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
#[ignore = "needs root"]
fn it_lives_and_keeps_what_the_reader_did() {
    let browser = Browser::start();
    let run = scenes::leak(300.0);
    let part = |samples: usize| {
        let mut part = scenes::leak(300.0);
        part.samples.truncate(samples);
        part
    };
    let site = with(vec![state("checkout", &part(40))]);
    let root = format!("http://{}", site.address);
    browser.open("about:blank");
    browser.requests();
    browser.open(&format!("{root}/targets/checkout"));
    browser.until("return document.querySelector('#live').dataset.state === 'live'");
    let before = browser.run("return document.querySelector('#sentence').innerText");
    // A row is opened and in focus, the page is scrolled.
    browser.run(
        "const row = document.querySelector('.groups details'); row.open = true; \
         row.querySelector('summary').focus(); scrollTo(0, 400); window.same = row",
    );
    site.shown.board.publish(state("checkout", &run));
    let sentence = format!("return document.querySelector('#sentence').innerText !== {before}");
    browser.until(&sentence);
    let kept = browser.run(
        "return [window.same.isConnected, window.same.open, document.activeElement === window.same.querySelector('summary'), \
         scrollY === 400]",
    );
    assert_eq!(kept, serde_json::json!([true, true, true, true]));

    // While text is selected nothing changes under it.
    browser.run("getSelection().selectAllChildren(document.querySelector('#sentence'))");
    let selected = browser.run("return getSelection().toString()");
    site.shown.board.publish(state("checkout", &part(60)));
    browser.until("return document.querySelector('#live').dataset.state === 'paused'");
    assert_eq!(browser.run("return getSelection().toString()"), selected);
    browser.run("getSelection().removeAllRanges()");
    browser.until("return document.querySelector('#live').dataset.state === 'live'");

    // Another range without losing the place.
    browser.run("document.querySelector('a[data-range][href=\"?range=all\"]').click()");
    browser.until("return location.search === '?range=all' && document.querySelector('a[data-range][aria-current]').innerText === 'all'");
    assert_eq!(browser.run("return window.same.isConnected && window.same.open"), true);

    // Another target joins the page of all.
    browser.open(&format!("{root}/"));
    browser.until("return document.querySelector('#live').dataset.state === 'live'");
    site.shown.board.publish(state("late", &scenes::healthy(60.0, 4)));
    browser.until("return document.body.innerText.includes('late')");
    // Under the pointer: what was when.
    browser.open(&format!("{root}/targets/checkout"));
    let (x, y) = middle(&browser, "svg.chart.wide");
    browser.hover(x, y - 60.0);
    let read = browser
        .until("const box = document.querySelector('.readout'); return box && !box.hidden && box.innerText");
    assert!(
        read.as_str().unwrap().contains("resident") && read.as_str().unwrap().contains("checkout.go:41"),
        "{read}"
    );
    browser.screenshot("readout");

    let mut others = browser.requests();
    others.retain(|url| !url.starts_with(&root) && !url.starts_with("data:"));
    assert_eq!(others, Vec::<String>::new());
    assert_eq!(browser.complaints(), Vec::<String>::new());

    // observer goes away: the reader is told.
    drop(site);
    browser.until("return document.querySelector('#live').dataset.state === 'lost'");
}
