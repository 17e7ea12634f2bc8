//! The page as text: whatever a target is called, the page stays whole, harmless and at home.

use std::sync::{Arc, Mutex};

use observer::board::TargetState;
use observer::diagnose::{Diagnosis, History, diagnose};
use observer::sample::{Degraded, Group, GroupId, Memory, Sample};
use observer::tell::report::html;
use observer::tell::web::chart::{self, Picture, Size};
use observer::tell::web::page::named;
use observer::timeline::{GroupAt, Point, Timeline};

use crate::simulate::service;
use crate::support::scenes;
use crate::support::shown::{BEGAN, Site, state};

const EVIL: &str = "<script>alert(1)</script>\"'&--></svg></style>\u{1b}[2J\u{202e}\u{0}\n`${x}`";

/// Every element is closed in its turn; gives how many there are.
fn well_formed(text: &str) -> usize {
    const VOID: [&str; 5] = ["meta", "link", "br", "input", "img"];
    let (mut open, mut elements, mut rest) = (Vec::new(), 0, text);
    while let Some((_, tag)) = rest.split_once('<') {
        // Style and script hold anything but their own end.
        if let Some(raw) = open.last().filter(|name| matches!(**name, "style" | "script"))
            && !tag.starts_with(&format!("/{raw}>"))
        {
            rest = tag;
            continue;
        }
        let mut quoted = false;
        let end = tag
            .char_indices()
            .find(|(_, c)| {
                quoted ^= *c == '"';
                *c == '>' && !quoted
            })
            .unwrap_or_else(|| panic!("a tag without end: {}", tag.chars().take(100).collect::<String>()))
            .0;
        let (inner, after) = (&tag[..end], &tag[end + 1..]);
        rest = after;
        let name = inner.trim_start_matches('/').split([' ', '/', '\n']).next().unwrap();
        assert!(name.starts_with('!') || name.bytes().all(|b| b.is_ascii_alphanumeric()), "<{inner}>");
        if name.starts_with('!') || inner.ends_with('/') || VOID.contains(&name) {
            continue;
        }
        if inner.starts_with('/') {
            assert_eq!(open.pop(), Some(name), "at the end of <{inner}>");
        } else {
            open.push(name);
            elements += 1;
        }
    }
    assert!(open.is_empty(), "left open: {open:?}");
    elements
}

fn harmless(page: &str) {
    assert!(!page.contains("<script>alert"), "a name became a script");
    assert!(!page.contains("alert(1)</script>"), "a name became a script's end");
    let bad = |c: &char| {
        (c.is_control() && *c != '\n') || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    assert_eq!(page.chars().find(bad), None);
}

/// No address of any machine.
fn at_home(page: &str) {
    let page = page.replace("http://www.w3.org/2000/svg", "");
    for outside in ["http:", "https:", "src=\"//", "href=\"//", "@import", "url("] {
        if let Some(at) = page.find(outside) {
            panic!("{outside} in …{}…", page[at..].chars().take(80).collect::<String>());
        }
    }
}

fn hostile() -> TargetState {
    let mut run = scenes::leak(90.0);
    let long = format!("{EVIL}{}", "é".repeat(10_000));
    run.target.comm = EVIL.into();
    run.target.exe = long.clone();
    run.target.runtime.version = Some(EVIL.into());
    for sample in &mut run.samples {
        for group in &mut sample.groups {
            let mut frames = group.frames.to_vec();
            for frame in &mut frames {
                frame.function = format!("{}{long}", frame.function);
                frame.file = Some(format!("/src/{EVIL}.go"));
            }
            group.frames = frames.into();
            group.wait_reason = format!("{}{EVIL}", group.wait_reason).into();
            if let Some(on) = &mut group.waits_on {
                on.element_type = Some(long.clone());
                on.owner = Some(EVIL.into());
            }
            if let Some(creator) = &mut group.created_by {
                creator.function.clone_from(&long);
            }
        }
        sample.degraded = vec![Degraded { feature: EVIL.into(), reason: long.clone(), remedy: EVIL.into() }];
        sample.losses.insert(EVIL.into(), 3);
    }
    let mut state = scenes::full("hostile", run);
    let mut diagnosis = (*state.diagnosis).clone();
    diagnosis.notes = vec![EVIL.into()];
    diagnosis.deadlocks[0].description = long;
    for thread in &mut diagnosis.deadlocks[0].threads {
        thread.name = EVIL.into();
        thread.wait_reason = EVIL.into();
    }
    diagnosis.target.comm = EVIL.into();
    state.diagnosis = Arc::new(diagnosis);
    state
}

#[test]
fn names_of_a_target_stay_names() {
    let site = Site::start(|_| {});
    let target = hostile();
    assert_eq!(target.diagnosis.culprits.len(), 1, "the hostile target leaks too");
    site.shown.board.publish(target.clone());
    site.shown.board.set_awaited(vec![format!("cgroup {EVIL}")]);
    for path in ["/", "/targets/hostile", "/targets/checkout", "/targets/%3Cscript%3Ealert(1)%3C%2Fscript%3E"]
    {
        let page = site.get(path);
        harmless(page.text());
        at_home(page.text());
        assert!(well_formed(page.text()) > 10, "{path}");
        assert!(page.body.len() < 600_000, "{path}: {} bytes", page.body.len());
    }
    let file = html::diagnosis(&target.diagnosis, &target.timeline(), &target.sample, target.last_sampled);
    assert!(!file.contains("<script>alert"));
    well_formed(&file);
}

#[test]
fn a_deadlock_has_the_stack_of_each_thread() {
    let site = Site::start(|_| {});
    site.shown.board.publish(scenes::full("bank", scenes::leak(300.0)));
    let page = site.get("/targets/bank");
    let text = page.text();
    let deadlocks = text.split_once("id=\"deadlocks\"").unwrap().1.split_once("</section>").unwrap().0;
    for words in
        ["thread 4251 (db-pool-1) holds", "Thread 4252 (db-pool-2)", "refund", "account.c:52", "transfer"]
    {
        assert!(deadlocks.contains(words), "no {words} in {deadlocks}");
    }
    well_formed(text);
}

#[test]
fn the_page_says_the_culprit_without_a_script() {
    let site = Site::start(|_| {});
    let page = site.get("/targets/checkout");
    let text = page.text();
    let title = text.split_once("<title>").unwrap().1.split_once("</title>").unwrap().0;
    assert!(title.starts_with("LEAK: checkout"), "{title}");
    let sentence = text.split_once("id=\"sentence\">").unwrap().1.split_once("</h1>").unwrap().0;
    assert!(sentence.contains("checkout.(*Quoter).fetch checkout.go:41"), "{sentence}");
    // The verdict, then the picture, then the stack.
    let places: Vec<usize> =
        ["id=\"sentence\"", "<svg viewBox", "class=\"stack\"", "id=\"groups\"", "id=\"not-seen\""]
            .iter()
            .map(|part| text.find(part).unwrap_or_else(|| panic!("no {part}")))
            .collect();
    assert!(places.is_sorted(), "{places:?}");
    // Every address of an area is that of a stack on the page.
    for link in text.match_indices("href=\"#").map(|(at, _)| &text[at + 7..]) {
        let id = link.split_once('"').unwrap().0;
        assert!(text.contains(&format!("id=\"{id}\"")), "nothing is called {id}");
    }
    let all = site.get("/");
    assert!(all.text().contains("./targets/checkout") && all.text().contains("LEAK"));
    let missing = site.get("/targets/nobody");
    assert_eq!(missing.status, 404);
    assert!(missing.text().contains("No such target"));
}

#[test]
fn the_policy_lets_nothing_in_and_the_assets_are_kept() {
    let site = Site::start(|_| {});
    let page = site.get("/targets/checkout");
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self'"), "{policy}");
    assert!(!policy.contains("unsafe"), "{policy}");
    assert!(!page.text().contains(" style=\"") && !page.text().contains(" onclick"), "nothing inline");
    for asset in ["page.css", "page.js", "icon.svg"] {
        let named = page.text().split_once(&format!("../assets/{asset}?v=")).unwrap().1;
        let version: String = named.chars().take_while(char::is_ascii_hexdigit).collect();
        let answer = site.get(&format!("/assets/{asset}?v={version}"));
        assert_eq!(answer.status, 200, "{asset}");
        assert!(answer.header("cache-control").unwrap().contains("immutable"), "{asset}");
        if asset != "icon.svg" {
            at_home(answer.text());
        }
    }
}

#[test]
fn the_script_waits_for_what_is_new() {
    let site = Site::start(|_| {});
    let page = site.get("/targets/checkout");
    let version = page.text().split_once("data-version=\"").unwrap().1.split_once('"').unwrap().0.to_owned();
    // Nothing is new: an empty answer after a while.
    let same = site.ask("GET", "/targets/checkout", &[("X-Observer-After", &version)]);
    assert_eq!((same.status, same.body.len()), (204, 0));
    // Something is: the page, as soon as it is there.
    let board = Arc::clone(&site.shown.board);
    let later = std::thread::spawn(move || {
        let mut next = (*board.target("checkout").unwrap()).clone();
        next.last_sampled += 1.0;
        board.publish(next);
    });
    let next = site.ask("GET", "/targets/checkout", &[("X-Observer-After", &version)]);
    later.join().unwrap();
    assert_eq!(next.status, 200);
    assert!(!next.text().contains(&version));
    let garbage = site.ask("GET", "/targets/checkout?range=%ff&&=", &[("X-Observer-After", "\u{7f}x")]);
    assert!(garbage.status == 200 || garbage.status == 400, "{}", garbage.status);
}

#[test]
fn a_page_of_nothing_says_what_is_looked_for() {
    let site = Site::start(|_| {});
    site.shown.board.forget("checkout");
    site.shown.board.set_awaited(vec!["comm indexer".into()]);
    let page = site.get("/");
    assert!(page.text().contains("No target yet") && page.text().contains("comm indexer"));
    well_formed(page.text());
}

#[test]
fn one_file_needs_nothing_else() {
    let target = scenes::full("checkout", scenes::leak(120.0));
    let file = html::diagnosis(&target.diagnosis, &target.timeline(), &target.sample, target.last_sampled);
    // What is within the flame graphs is looked at apart.
    let mut outside = String::new();
    let mut frames = 0;
    for (place, part) in file.split("src=\"data:image/svg+xml").enumerate() {
        frames += usize::from(place > 0);
        outside.push_str(if place == 0 { part } else { part.split_once('"').unwrap().1 });
    }
    assert_eq!(frames, 4, "blocked and growth, each live and, beneath it, still");
    at_home(&outside);
    assert!(!outside.contains(" src=") && !outside.contains("<link"), "it asks for a file");
    assert!(outside.contains("checkout.(*Quoter).fetch checkout.go:41"));
    assert!(outside.contains("futex owners") && outside.contains("update observer"), "what does not work");
    well_formed(&file);
    // The same for the same.
    let again = html::diagnosis(&target.diagnosis, &target.timeline(), &target.sample, target.last_sampled);
    assert!(file == again, "not a pure function");
    // And of nothing at all.
    let nothing = diagnose(&History::new(), &service::target());
    well_formed(&html::diagnosis(&nothing, &Timeline::default(), &Sample::default(), f64::NAN));
}

fn picture_of(points: &[Point], diagnosis: &Diagnosis) -> Picture {
    let mut timeline = Timeline::default();
    timeline.push(
        BEGAN,
        &Sample {
            groups: vec![Group { id: GroupId(1), count: 3, stack_bytes: u64::MAX, ..Group::default() }],
            ..Sample::default()
        },
    );
    Picture::new(points, &named(points, &timeline), diagnosis)
}

/// All numbers of a drawing are within it.
fn within(svg: &str) {
    assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    let view = svg.split_once("viewBox=\"0 0 ").unwrap().1.split_once('"').unwrap().0;
    let (width, height) = view.split_once(' ').unwrap();
    let (width, height): (i64, i64) = (width.parse().unwrap(), height.parse().unwrap());
    for points in svg.split("points=\"").skip(1) {
        for pair in points.split_once('"').unwrap().0.split(' ') {
            let (x, y) = pair.split_once(',').unwrap();
            let (x, y): (i64, i64) = (x.parse().unwrap(), y.parse().unwrap());
            assert!((0..=width).contains(&x) && (0..=height).contains(&y), "{pair} of {view}");
        }
    }
}

#[test]
fn any_series_makes_a_picture_or_none() {
    let diagnosis = state("checkout", &scenes::leak(90.0)).diagnosis;
    let culprit = diagnosis.culprits[0].group.id;
    let point = |at: f64, resident: u64, count: u64| Point {
        at,
        resident_bytes: resident,
        limit_bytes: Some(resident / 2),
        groups: vec![
            GroupAt { id: culprit, count, bytes: count },
            GroupAt { id: GroupId(1), count, bytes: u64::MAX },
        ],
        ..Point::default()
    };
    let mut broken = (*diagnosis).clone();
    broken.culprits[0].bytes_per_member = f64::NAN;
    let mut endless = (*diagnosis).clone();
    endless.culprits[0].bytes_per_member = f64::INFINITY;
    let series: Vec<Vec<Point>> = vec![
        vec![],
        vec![point(BEGAN, 1, 1)],
        (0..2_000).map(|i| point(BEGAN + f64::from(i), 1 << 30, u64::from(i as u32))).collect(),
        vec![point(BEGAN, 0, 0), point(BEGAN + 0.001, 0, 0)],
        vec![point(BEGAN, u64::MAX, u64::MAX), point(BEGAN + 1e9, 0, 0)],
        // Clocks that stand, run back or are none.
        vec![point(BEGAN, 5, 5), point(BEGAN, 6, 6), point(BEGAN - 9.0, 7, 7), point(f64::NAN, 8, 8)],
        vec![point(f64::NEG_INFINITY, 5, 5), point(f64::MAX, 6, 6), point(1e300, 7, 7)],
        (0..50).map(|i| Point { generation: i, ..point(BEGAN + f64::from(i), 1 << 20, 2) }).collect(),
    ];
    for points in &series {
        for diagnosis in [&*diagnosis, &broken, &endless] {
            let picture = picture_of(points, diagnosis);
            for size in [Size::Wide, Size::Narrow] {
                let svg = chart::picture(&picture, size, "memory");
                assert_eq!(svg.is_empty(), picture.is_empty());
                if !svg.is_empty() {
                    within(&svg);
                    well_formed(&svg);
                }
            }
            let spark = chart::sparkline(&picture, "memory");
            within(&spark);
            well_formed(&spark);
        }
    }
}

#[test]
fn the_culprit_lies_on_top_and_weighs_what_the_diagnosis_says() {
    let target = state("checkout", &scenes::leak(120.0));
    let timeline = target.timeline();
    let points = timeline.points(0.0, 360);
    let picture = Picture::new(&points, &named(&points, &timeline), &target.diagnosis);
    let culprit = &target.diagnosis.culprits[0];
    let top = picture.layers.last().unwrap();
    assert_eq!((top.id, top.kind), (Some(culprit.group.id), chart::Kind::Culprit(0)));
    let weighs = culprit.bytes_per_member * culprit.group.count as f64;
    assert!((top.last_bytes() / weighs - 1.0).abs() < 0.01, "{} of {weighs}", top.last_bytes());
    let svg = chart::picture(&picture, Size::Wide, "memory");
    assert!(svg.contains(&format!("href=\"#group-{:016x}\"", culprit.group.id.0)));
    assert!(svg.contains("class=\"memory\"") && !svg.contains("fill=\"#"), "colours are the page's");
}

#[test]
fn a_restart_and_a_gap_interrupt_the_line() {
    let point = |at: f64, generation: u32| Point {
        at: BEGAN + at,
        generation,
        resident_bytes: 1 << 20,
        ..Point::default()
    };
    let mut points: Vec<Point> = (0..100).map(|i| point(f64::from(i), 0)).collect();
    points.extend((0..100).map(|i| point(1_000.0 + f64::from(i), 0)));
    points.extend((0..100).map(|i| point(1_100.0 + f64::from(i), 1)));
    let diagnosis = diagnose(&History::new(), &service::target());
    let picture = picture_of(&points, &diagnosis);
    assert_eq!(picture.stretches, [0..100, 100..200, 200..300]);
    assert_eq!(picture.restarts, [BEGAN + 1_100.0]);
    let svg = chart::picture(&picture, Size::Wide, "memory");
    assert_eq!(svg.matches("class=\"memory\"").count(), 3);
    assert!(svg.contains("class=\"restart\""));
    // What is kept at longer steps is no gap.
    let thinned: Vec<Point> = (0..60)
        .map(|i| point(f64::from(i) * 60.0, 0))
        .chain((0..100).map(|i| point(3_600.0 + f64::from(i), 0)))
        .collect();
    assert_eq!(picture_of(&thinned, &diagnosis).stretches.len(), 1);
}

#[test]
fn a_limit_is_drawn_where_it_is_near() {
    let points = |limit: u64| -> Vec<Point> {
        (0..9)
            .map(|i| Point {
                at: BEGAN + f64::from(i),
                resident_bytes: 100 << 20,
                limit_bytes: Some(limit),
                ..Point::default()
            })
            .collect()
    };
    let diagnosis = diagnose(&History::new(), &service::target());
    let near = picture_of(&points(128 << 20), &diagnosis);
    assert!(chart::picture(&near, Size::Wide, "").contains("limit 128 MiB"));
    let far = picture_of(&points(64 << 30), &diagnosis);
    assert_eq!((far.limit, far.far_limit), (None, Some((64u64 << 30) as f64)));
}

#[test]
fn the_worst_comes_first() {
    let site = Site::start(|_| {});
    site.shown.board.publish(state("a-calm", &scenes::healthy(90.0, 4)));
    site.shown.board.publish(state("b-growing", &scenes::growing(300.0)));
    let gone = Arc::new(Mutex::new(Timeline::default()));
    site.shown.board.publish(TargetState {
        up: false,
        timeline: gone,
        sample: Arc::new(Sample { memory: Memory::default(), ..Sample::default() }),
        ..state("c-gone", &scenes::healthy(90.0, 4))
    });
    let page = site.get("/");
    let places: Vec<usize> = ["/checkout", "/b-growing", "/a-calm", "/c-gone"]
        .iter()
        .map(|name| page.text().find(&format!("./targets{name}\"")).unwrap_or_else(|| panic!("no {name}")))
        .collect();
    assert!(places.is_sorted(), "{places:?}");
    assert!(page.text().contains("exited, last seen"));
}
