//! The full-screen view, drawn into a buffer: what it shows at several sizes, what keys do, and that nothing a target
//! is called steers the terminal.

use std::sync::Arc;
use std::time::Duration;

use observer::diagnose::{History, diagnose};
use observer::sample::{Frame, Group, GroupId, Sample, TargetInfo};
use observer::tell::terminal::{Action, View, draw};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use crate::simulate::service;

/// The story's service after a minute and a half.
fn watched(color: bool) -> View {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/series/leak-story.jsonl"));
    let (target, samples) = observer::diagnose::recording::read(&text.unwrap()).unwrap();
    let mut view = View::new(Duration::from_secs(2), color);
    view.begin(&target, Duration::from_secs(300));
    let mut history = History::new();
    for sample in samples {
        view.sample(&target, &Arc::new(sample.clone()));
        history.push(sample);
        view.diagnosis(diagnose(&history, &target));
    }
    view
}

fn screen(view: &mut View, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, view)).unwrap();
    let buffer = terminal.backend().buffer();
    let mut text = String::new();
    for line in buffer.content().chunks(usize::from(width)) {
        text.extend(line.iter().map(ratatui::buffer::Cell::symbol));
        text.push('\n');
    }
    text
}

fn press(view: &mut View, keys: &[KeyCode]) -> Action {
    let mut last = Action::Nothing;
    for code in keys {
        last = view.key(KeyEvent::new(*code, KeyModifiers::NONE));
    }
    last
}

fn type_in(view: &mut View, text: &str) {
    let keys: Vec<KeyCode> = text.chars().map(KeyCode::Char).collect();
    press(view, &keys);
}

/// The line that `>` marks.
#[track_caller]
fn selected(screen: &str) -> &str {
    screen
        .lines()
        .find(|line| line.starts_with('>'))
        .unwrap_or_else(|| panic!("nothing is selected:\n{screen}"))
}

#[test]
fn a_usual_terminal_shows_who_leaks_and_where() {
    let mut view = watched(true);
    let shown = screen(&mut view, 80, 24);
    for words in [
        "checkout (pid 4242",
        "LEAK",
        "chan send",
        "checkout.go:41",
        "resident",
        "MiB│",
        " s",
        "q end",
        "of 5 m",
    ] {
        assert!(shown.contains(words), "`{words}` is not in\n{shown}");
    }
    let first = selected(&shown);
    assert!(first.starts_with(">!"), "the culprit grows fastest: {first}");
    assert!(first.contains("/s") && first.contains("checkout.go:41"), "{first}");
    println!("{shown}");
}

#[test]
fn every_size_is_drawn() {
    let mut view = watched(false);
    for stack in [false, true] {
        for (width, height) in [
            (1, 1),
            (2, 2),
            (5, 3),
            (10, 4),
            (40, 10),
            (40, 60),
            (80, 16),
            (129, 24),
            (130, 24),
            (400, 100),
            (300, 2),
        ] {
            let shown = screen(&mut view, width, height);
            if width >= 40 && height >= 10 {
                assert!(shown.contains("LEAK") && shown.contains('>'), "{width}x{height}\n{shown}");
            }
        }
        // Also with the help above it, and before there is anything to show.
        press(&mut view, &[KeyCode::Char('?')]);
        screen(&mut view, 40, 10);
        screen(&mut view, 3, 2);
        press(&mut view, &[KeyCode::Char('?')]);
        if !stack {
            press(&mut view, &[KeyCode::Enter]);
        }
    }
    let mut empty = View::new(Duration::from_secs(1), false);
    assert!(screen(&mut empty, 80, 24).contains("first sample"));
    press(&mut empty, &[KeyCode::Enter, KeyCode::Down, KeyCode::End, KeyCode::Char('p'), KeyCode::PageDown]);
    screen(&mut empty, 80, 24);
    press(&mut empty, &[KeyCode::Char('p'), KeyCode::Enter]);
    empty.sample(&TargetInfo::default(), &Arc::new(Sample::default()));
    assert!(screen(&mut empty, 80, 24).contains("no groups"));
}

#[test]
fn enter_shows_the_stack_with_its_lines() {
    let mut view = watched(false);
    press(&mut view, &[KeyCode::Enter]);
    for (width, height) in [(80, 24), (160, 40)] {
        let shown = screen(&mut view, width, height);
        for words in
            ["blocked at checkout.(*Quoter).fetch", "checkout.go:41", "created by", "waits on", "holds"]
        {
            assert!(shown.contains(words), "`{words}` is not in\n{shown}");
        }
    }
    press(&mut view, &[KeyCode::Esc]);
    assert!(!screen(&mut view, 80, 24).contains("created by"));
}

#[test]
fn keys_select_sort_and_filter() {
    let mut view = watched(false);
    let first = selected(&screen(&mut view, 100, 24)).to_owned();
    press(&mut view, &[KeyCode::Down]);
    let second = selected(&screen(&mut view, 100, 24)).to_owned();
    assert_ne!(first[2..], second[2..]);
    press(&mut view, &[KeyCode::Char('k')]);
    assert_eq!(selected(&screen(&mut view, 100, 24)), first);
    press(&mut view, &[KeyCode::End]);
    let last = selected(&screen(&mut view, 100, 24)).to_owned();
    press(&mut view, &[KeyCode::Down, KeyCode::PageDown]);
    assert_eq!(selected(&screen(&mut view, 100, 24)), last);
    press(&mut view, &[KeyCode::Home]);
    assert_eq!(selected(&screen(&mut view, 100, 24)), first);

    // What is selected stays selected when rows change places.
    press(&mut view, &[KeyCode::Char('r')]);
    let reversed = screen(&mut view, 100, 24);
    assert!(reversed.contains("by growth, reversed"), "{reversed}");
    assert_eq!(selected(&reversed)[2..], first[2..]);
    press(&mut view, &[KeyCode::Char('s')]);
    assert!(screen(&mut view, 100, 24).contains("by count "));
    for words in ["oldest wait", "bytes held", "what they wait for", "place", "growth"] {
        press(&mut view, &[KeyCode::Char('s')]);
        assert!(screen(&mut view, 100, 24).contains(&format!("by {words} ")), "{words}");
    }

    press(&mut view, &[KeyCode::Char('/')]);
    type_in(&mut view, "JOBS.w");
    let filtered = screen(&mut view, 100, 24);
    assert!(filtered.contains("filter: JOBS.w_") && filtered.contains("jobs.worker"), "{filtered}");
    assert!(selected(&filtered).contains("jobs.worker") && !filtered.contains("net.(*conn)"), "{filtered}");
    // Letters are the filter's, not commands.
    assert_eq!(press(&mut view, &[KeyCode::Char('q'), KeyCode::Char('x')]), Action::Nothing);
    assert!(screen(&mut view, 100, 24).contains("no group has this"));
    press(&mut view, &[KeyCode::Esc]);
    assert!(!screen(&mut view, 100, 24).contains("filter:"));
}

#[test]
fn a_pause_holds_the_picture_and_not_the_sampling() {
    let mut view = watched(false);
    press(&mut view, &[KeyCode::Char('p')]);
    let (info, sample) = view.shown().map(|(info, sample)| (info.clone(), Arc::clone(sample))).unwrap();
    let held = screen(&mut view, 100, 24);
    assert!(held.contains("PAUSED"), "{held}");
    let mut later = (*sample).clone();
    later.at_seconds += 50.0;
    later.groups.clear();
    view.sample(&info, &Arc::new(later));
    let still = screen(&mut view, 100, 24);
    // All but the clock in the first line.
    assert!(still.lines().skip(1).eq(held.lines().skip(1)), "{held}\n{still}");
    assert_eq!(view.shown().map(|(_, shown)| shown.at_seconds), Some(sample.at_seconds));
    press(&mut view, &[KeyCode::Char('p')]);
    assert!(screen(&mut view, 100, 24).contains("no groups"));
}

#[test]
fn ways_out_and_what_is_asked_of_the_driver() {
    let mut view = watched(false);
    assert_eq!(press(&mut view, &[KeyCode::Char('q')]), Action::Quit);
    assert_eq!(view.key(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL)), Action::Quit);
    assert_eq!(press(&mut view, &[KeyCode::Char('w')]), Action::Write);
    view.say("wrote /srv/observer-1.json".to_owned());
    assert!(screen(&mut view, 80, 24).contains("wrote /srv/observer-1.json"));
    press(&mut view, &[KeyCode::Down]);
    assert!(!screen(&mut view, 80, 24).contains("wrote"));
    // Ctrl-C also while a filter is typed, where letters are text.
    press(&mut view, &[KeyCode::Char('/')]);
    assert_eq!(view.key(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL)), Action::Quit);
}

#[test]
fn names_from_the_target_do_not_steer_the_terminal() {
    let evil = "a\x1b[2J\u{202e}b\r\n\u{9b}31m";
    let mut view = View::new(Duration::from_secs(1), false);
    let info = TargetInfo { comm: evil.to_owned(), pid: 7, ..TargetInfo::default() };
    let frame =
        Frame { function: evil.to_owned(), file: Some(evil.to_owned()), line: Some(1), ..Frame::default() };
    let group = Group {
        id: GroupId(1),
        count: 5,
        state: evil.into(),
        wait_reason: evil.into(),
        frames: vec![frame; 300].into(),
        ..Group::default()
    };
    let sample = Sample { groups: vec![group; 2], at_seconds: f64::MAX, ..Sample::default() };
    view.begin(&info, Duration::from_secs(60));
    view.sample(&info, &Arc::new(sample));
    press(&mut view, &[KeyCode::Char('/')]);
    type_in(&mut view, "a\u{202e}");
    press(&mut view, &[KeyCode::Backspace, KeyCode::Enter, KeyCode::Enter]);
    let shown = screen(&mut view, 120, 40);
    assert!(shown.contains("a\\u{1b}[2J"), "{shown}");
    assert!(!shown.chars().any(|c| c.is_control() && c != '\n') && !shown.contains('\u{202e}'), "{shown:?}");
}

#[test]
fn colour_is_never_the_only_sign_and_can_be_refused() {
    let colors = |view: &mut View| {
        let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
        terminal.draw(|frame| draw(frame, view)).unwrap();
        let buffer = terminal.backend().buffer().clone();
        buffer.content().iter().filter(|cell| cell.fg != ratatui::style::Color::Reset).count()
    };
    assert!(colors(&mut watched(true)) > 0);
    assert_eq!(colors(&mut watched(false)), 0);
    assert_eq!(screen(&mut watched(true), 80, 24), screen(&mut watched(false), 80, 24));
}

#[test]
fn a_deadlock_stands_first() {
    let mut view = watched(false);
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/series/leak-story.jsonl"));
    let (target, samples) = observer::diagnose::recording::read(&text.unwrap()).unwrap();
    let mut history = History::new();
    samples.into_iter().for_each(|sample| history.push(sample));
    let mut diagnosis = diagnose(&history, &target);
    diagnosis.deadlocks = vec![observer::diagnose::Deadlock {
        description: "thread 1 waits for thread 2\x1b[2J".to_owned(),
        ..Default::default()
    }];
    view.diagnosis(diagnosis);
    let shown = screen(&mut view, 100, 24);
    let second = shown.lines().nth(1).unwrap_or_default();
    assert!(second.starts_with("DEADLOCK  thread 1 waits for thread 2\\u{1b}"), "{shown}");
    assert!(shown.contains("LEAK"), "{shown}");
}

#[test]
fn a_series_of_days_stays_small() {
    let mut view = View::new(Duration::from_secs(1), false);
    let info = service::target();
    for second in 0..20_000_u32 {
        let mut sample = Sample { at_seconds: f64::from(second), ..Sample::default() };
        sample.memory.resident_bytes = u64::from(second) << 10;
        view.sample(&info, &Arc::new(sample));
    }
    let shown = screen(&mut view, 100, 30);
    assert!(shown.contains("0 s") && shown.contains("5 h 33 m"), "the curve is whole:\n{shown}");
}
