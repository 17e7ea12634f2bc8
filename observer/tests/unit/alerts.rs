//! Alerts of observer's own: when they begin, repeat and end, and what becomes of them at receivers good and bad.

use std::sync::Arc;
use std::time::{Duration, Instant};

use observer::board::{Board, TargetState};
use observer::diagnose::{Deadlock, Verdict};
use observer::tell::alert::rules::Engine;
use observer::tell::alert::silence::{Silence, Silences};
use observer::tell::alert::{
    AlertKind, Alertmanager, Alerts, Log, Notification, Options, Phase, Receiver, ReceiverKind, Rules,
    Severity, Template, Webhook,
};
use observer::tell::metrics::Metrics;
use serde_json::Value;

use crate::simulate::cases;
use crate::support::listener::{Listener, eventually};
use crate::support::told::{BEGAN, after, healthy, leaking};

const MINUTE: f64 = 60.0;
const HOUR: f64 = 3600.0;

/// An engine and its clock.
struct Watch {
    engine: Engine,
    rules: Rules,
    silences: Silences,
    now: f64,
}

impl Watch {
    fn new(rules: Rules) -> Self {
        Self { engine: Engine::default(), rules, silences: Silences::default(), now: BEGAN }
    }

    /// The target is so for a while, looked at every ten seconds; what was told.
    fn be(&mut self, state: &TargetState, seconds: f64) -> Vec<Notification> {
        let mut told = Vec::new();
        let until = self.now + seconds;
        while self.now < until {
            let mut state = state.clone();
            state.last_sampled = self.now;
            told.extend(self.look(&[Arc::new(state)]));
            self.now += 10.0;
        }
        told
    }

    fn look(&mut self, targets: &[Arc<TargetState>]) -> Vec<Notification> {
        self.engine.look(self.now, targets, &self.rules, &self.silences, "http://page/").events
    }
}

fn phases(told: &[Notification]) -> Vec<Phase> {
    told.iter().map(|told| told.phase).collect()
}

/// Just started again: nothing can be said yet.
fn unclear(name: &str) -> TargetState {
    let mut state = leaking(name);
    let mut diagnosis = (*state.diagnosis).clone();
    diagnosis.verdict = Verdict::InsufficientData;
    diagnosis.culprits.clear();
    state.diagnosis = Arc::new(diagnosis);
    state
}

#[test]
fn a_leak_is_told_repeated_and_ended() {
    let mut watch = Watch::new(Rules::default());
    let told = watch.be(&leaking("checkout"), 9.0 * HOUR);
    assert_eq!(phases(&told), [Phase::Start, Phase::Repeat, Phase::Repeat]);
    let start = &told[0];
    assert_eq!((start.alert, start.severity), (AlertKind::Leak, Severity::Critical), "{}", start.text);
    assert!(start.times.now - BEGAN >= 0.5 * MINUTE, "the leak is seen for a while before it is told");
    assert!(
        start.summary.contains("chan send at checkout.(*Quoter).fetch checkout.go:41"),
        "{}",
        start.summary
    );
    assert_eq!(start.url, "http://page/targets/checkout");
    assert!(start.text.contains("% of the growth") && start.text.contains("limit"), "{}", start.text);
    assert!(told[1].times.now - start.times.now >= 4.0 * HOUR);
    assert!(told[1].text.contains("since "), "{}", told[1].text);
    assert!(told.iter().all(|told| told.id == start.id && told.started_at == start.started_at));

    let told = watch.be(&healthy("checkout"), HOUR);
    assert_eq!(phases(&told), [Phase::End]);
    assert_eq!(told[0].id, start.id);
    assert!(told[0].ended_at.is_some() && told[0].summary.ends_with("is over"), "{}", told[0].summary);
    assert!(watch.be(&healthy("checkout"), 5.0 * HOUR).is_empty());
}

#[test]
fn an_alert_does_not_flap() {
    let mut watch = Watch::new(Rules::default());
    let (bad, good) = (leaking("checkout"), healthy("checkout"));
    assert_eq!(phases(&watch.be(&bad, 2.0 * MINUTE)), [Phase::Start]);
    for _ in 0..10 {
        assert!(watch.be(&good, 4.0 * MINUTE).is_empty(), "well for a moment only");
        assert!(watch.be(&bad, MINUTE).is_empty(), "it never ended");
    }
    let mut watch = Watch::new(Rules::default());
    for _ in 0..10 {
        assert!(watch.be(&bad, 30.0).is_empty(), "seen for a moment only");
        assert!(watch.be(&good, 30.0).is_empty());
    }
}

#[test]
fn a_crash_ends_no_alert() {
    let mut watch = Watch::new(Rules::default());
    watch.be(&leaking("checkout"), 2.0 * MINUTE);
    let mut gone = leaking("checkout");
    gone.up = false;
    let told = watch.be(&gone, HOUR);
    assert_eq!(phases(&told), [Phase::Repeat], "that it has exited is told once");
    assert!(told[0].summary.ends_with("; the process has exited"), "{}", told[0].summary);
    assert!(watch.be(&unclear("checkout"), HOUR).is_empty(), "nothing is known of the new process");
    assert_eq!(phases(&watch.be(&healthy("checkout"), HOUR)), [Phase::End]);
}

#[test]
fn a_target_that_is_forgotten_or_cannot_be_sampled() {
    let mut watch = Watch::new(Rules::default());
    let bad = leaking("checkout");
    watch.be(&bad, 2.0 * MINUTE);
    let mut stuck = healthy("checkout");
    stuck.last_sampled = watch.now;
    for _ in 0..100 {
        watch.now += 10.0;
        let told = watch.look(&[Arc::new(stuck.clone())]);
        let well_for = watch.now - stuck.last_sampled;
        assert!(told.is_empty(), "an old sample says nothing: {well_for}");
    }
    let told = watch.look(&[]);
    assert_eq!(phases(&told), [Phase::End]);
    assert!(told[0].summary.contains("no longer observed"), "{}", told[0].summary);
}

/// A service that leaks so slowly, with this limit.
fn slow(bytes_per_second: f64, limit: Option<u64>, seconds_to_limit: Option<f64>) -> TargetState {
    let mut state = leaking("slow");
    let mut diagnosis = (*state.diagnosis).clone();
    diagnosis.memory.limit_bytes = limit;
    diagnosis.memory.seconds_to_limit = seconds_to_limit;
    diagnosis.culprits[0].growth_per_second = bytes_per_second / diagnosis.culprits[0].bytes_per_member;
    state.diagnosis = Arc::new(diagnosis);
    state
}

#[test]
fn growth_is_held_against_the_limit_and_the_time_to_it() {
    let mib = 1024.0 * 1024.0;
    let told = |state: &TargetState| !Watch::new(Rules::default()).be(state, 10.0 * MINUTE).is_empty();
    assert!(told(&slow(51.0 * mib / HOUR, None, None)), "50 MiB an hour without a limit");
    assert!(!told(&slow(49.0 * mib / HOUR, None, None)));
    assert!(told(&slow(52.0 * mib / HOUR, Some(1 << 30), None)), "5 % of a GiB an hour");
    assert!(!told(&slow(50.0 * mib / HOUR, Some(1 << 30), None)));
    assert!(told(&slow(mib / HOUR, Some(1 << 30), Some(20.0 * HOUR))), "a limit that is near");
    assert!(!told(&slow(mib / HOUR, Some(1 << 30), Some(30.0 * HOUR))));
    assert!(!told(&slow(0.0, Some(0), Some(f64::NAN))));
}

#[test]
fn it_becomes_critical_when_the_limit_is_near() {
    let mut watch = Watch::new(Rules::default());
    let told = watch.be(&slow(1e6, Some(1 << 30), Some(5.0 * HOUR)), 5.0 * MINUTE);
    assert_eq!(told[0].severity, Severity::Warning);
    let told = watch.be(&slow(1e6, Some(1 << 30), Some(0.5 * HOUR)), 5.0 * MINUTE);
    assert_eq!(phases(&told), [Phase::Repeat]);
    assert_eq!((told[0].severity, told[0].was), (Severity::Critical, Some(Severity::Warning)));
    assert!(watch.be(&slow(1e6, Some(1 << 30), Some(5.0 * HOUR)), 5.0 * MINUTE).is_empty(), "it rises only");
}

#[test]
fn start_up_and_silences_hold_alerts_back() {
    let mut watch = Watch::new(Rules::default());
    let mut young = leaking("checkout");
    young.info.started_at = "2027-01-15T08:00:00Z".to_owned();
    let told = watch.be(&young, 10.0 * MINUTE);
    assert_eq!(phases(&told), [Phase::Start]);
    assert!(told[0].times.now - BEGAN >= 2.5 * MINUTE, "two minutes, and the half of one of every leak");

    let mut watch = Watch::new(Rules::default());
    // 2027-01-15 08:00 UTC is a Friday.
    let silence =
        Silence { target: "check*".into(), from_minute: 7 * 60, to_minute: 9 * 60, weekdays: vec![4] };
    watch.silences = Silences::new(&[silence]).unwrap();
    let told = watch.be(&leaking("checkout"), 2.0 * HOUR);
    assert_eq!(phases(&told), [Phase::Start]);
    assert!(told[0].times.now >= BEGAN + HOUR);
}

#[test]
fn growth_without_a_culprit_needs_a_quarter_of_an_hour() {
    let case = cases::growing().swap_remove(0);
    let state = after("cache", &case.service.run(3));
    assert_eq!(state.diagnosis.verdict, Verdict::Growing, "{}", state.diagnosis.sentence);
    let mut watch = Watch::new(Rules::default());
    assert!(watch.be(&state, 14.0 * MINUTE).is_empty());
    let told = watch.be(&state, 5.0 * MINUTE);
    assert_eq!(phases(&told), [Phase::Start]);
    assert_eq!(told[0].alert, AlertKind::Growing);
    assert!(told[0].culprit.is_none() && told[0].summary.contains("no blocked"), "{}", told[0].summary);
}

#[test]
fn a_deadlock_is_told_at_once_and_in_a_young_process_too() {
    let mut state = healthy("bank");
    let mut diagnosis = (*state.diagnosis).clone();
    for pair in 0..5 {
        let description = format!("thread {pair} waits\x1b[2J for thread {}", pair + 1);
        diagnosis.deadlocks.push(Deadlock { description, ..Deadlock::default() });
    }
    state.diagnosis = Arc::new(diagnosis);
    state.info.started_at = "2027-01-15T08:00:00Z".to_owned();
    let mut watch = Watch::new(Rules::default());
    let told = watch.be(&state, 1.0);
    assert_eq!(phases(&told), [Phase::Start], "at the first look");
    assert_eq!((told[0].alert, told[0].severity), (AlertKind::Deadlock, Severity::Critical));
    assert!(told[0].text.contains("and 2 more"), "{}", told[0].text);
    assert!(!told[0].text.contains('\x1b') && !told[0].summary.contains('\x1b'));
}

#[test]
fn nothing_odd_in_a_diagnosis_is_too_much() {
    let mut state = leaking("odd");
    let mut diagnosis = (*state.diagnosis).clone();
    let culprit = &mut diagnosis.culprits[0];
    culprit.growth_per_second = f64::INFINITY;
    culprit.bytes_per_member = f64::NAN;
    culprit.group.count = u64::MAX;
    culprit.site = None;
    culprit.group.frames = [].into();
    diagnosis.memory.seconds_to_limit = Some(f64::NEG_INFINITY);
    let many = vec![culprit.clone(); 1000];
    diagnosis.culprits = many;
    state.diagnosis = Arc::new(diagnosis);
    state.info.started_at = "yesterday".to_owned();
    state.interval_seconds = f64::NAN;
    let rules = Rules { leak_for: Duration::ZERO, ..Rules::default() };
    let mut watch = Watch::new(rules);
    for now in [BEGAN, f64::NAN, f64::INFINITY, -1e300, BEGAN] {
        watch.now = now;
        for told in watch.look(&[Arc::new(state.clone())]) {
            serde_json::to_string(&told).unwrap();
        }
    }
}

/// Options that tell at once.
fn at_once(receivers: Vec<Receiver>) -> Options {
    let rules = Rules { leak_for: Duration::ZERO, keep_firing_for: Duration::ZERO, ..Rules::default() };
    Options { external_url: "http://127.0.0.1:9713".to_owned(), rules, silences: Vec::new(), receivers }
}

fn webhook(listener: &Listener, template: Template) -> Receiver {
    Receiver {
        name: "hook".to_owned(),
        to: ReceiverKind::Webhook(Webhook::new(&listener.url("/hook"), template)),
    }
}

/// Begins and ends the leak on a board, a tick each.
fn story(alerts: &Alerts) {
    tell(alerts, &leaking("checkout"), &healthy("checkout"));
}

fn tell(alerts: &Alerts, bad: &TargetState, good: &TargetState) {
    let board = Board::default();
    let mut now = BEGAN;
    for state in [bad, bad, good, good] {
        let state = state.clone();
        now += 10.0;
        board.publish(TargetState { last_sampled: now, ..state });
        alerts.tick(now, &board);
    }
}

#[test]
fn a_webhook_is_told_start_and_end_in_order() {
    let listener = Listener::start(|_| 200);
    let alerts = Alerts::new(at_once(vec![webhook(&listener, Template::Json)])).unwrap();
    story(&alerts);
    alerts.stop(Duration::from_secs(10));
    let told: Vec<Value> = listener.bodies();
    assert_eq!(told.len(), 2, "{told:?}");
    assert_eq!((&told[0]["schema"], &told[0]["phase"]), (&"observer.alert/1".into(), &"start".into()));
    assert_eq!(told[0]["culprit"]["line"], 41);
    for document in &told {
        let (mut all, mut compiler) = (boon::Schemas::new(), boon::Compiler::new());
        let schema = observer::tell::web::schema::schemas()["observer.alert/1"].as_value().clone();
        compiler.add_resource("alert.json", schema).unwrap();
        let schema = compiler.compile("alert.json", &mut all).unwrap();
        all.validate(document, schema).unwrap_or_else(|error| panic!("{error}"));
    }
    assert_eq!(told[1]["phase"], "end");
    assert_eq!(told[0]["id"], told[1]["id"]);
    assert_eq!(alerts.counters().deliveries()["hook"].delivered, 2);
}

#[test]
fn what_fails_is_tried_again_and_what_is_refused_is_not() {
    let flaky = Listener::start(|request| if request < 2 { 503 } else { 204 });
    let alerts = Alerts::new(at_once(vec![webhook(&flaky, Template::Slack)])).unwrap();
    story(&alerts);
    eventually("both arrive", || flaky.bodies().len() == 4);
    alerts.stop(Duration::from_secs(5));
    let tally = alerts.counters().deliveries()["hook"];
    assert_eq!((tally.delivered, tally.attempts_failed, tally.failed), (2, 2, 0));

    let refuses = Listener::start(|_| 404);
    let alerts = Alerts::new(at_once(vec![webhook(&refuses, Template::Json)])).unwrap();
    story(&alerts);
    alerts.stop(Duration::from_secs(5));
    let tally = alerts.counters().deliveries()["hook"];
    assert_eq!((tally.delivered, tally.failed), (0, 2));
    assert_eq!(refuses.bodies().len(), 2);
}

#[test]
fn a_receiver_that_hangs_holds_up_nobody() {
    let hangs = Listener::silent();
    let works = Listener::start(|_| 200);
    let mut working = webhook(&works, Template::Json);
    working.name = "works".to_owned();
    let alerts = Alerts::new(at_once(vec![webhook(&hangs, Template::Json), working])).unwrap();
    let (bad, good) = (leaking("checkout"), healthy("checkout"));
    let begun = Instant::now();
    for _ in 0..200 {
        tell(&alerts, &bad, &good);
    }
    let told = begun.elapsed();
    eventually("the others are told", || !works.bodies().is_empty());
    // One request to the other hangs for ten seconds, and 400 are told.
    assert!(told < Duration::from_secs(60), "a tick waits for nobody: {told:?}");
    let tally = alerts.counters().deliveries()["hook"];
    assert!(tally.dropped >= 400 - 257, "{tally:?}");
    let begun = Instant::now();
    alerts.stop(Duration::from_millis(300));
    assert!(begun.elapsed() < Duration::from_secs(8), "an end has a bound: {:?}", begun.elapsed());
}

#[test]
fn the_log_is_a_line_each() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("alerts.log");
    let log = Receiver { name: "log".to_owned(), to: ReceiverKind::Log(Log::File(path.clone())) };
    let alerts = Alerts::new(at_once(vec![log])).unwrap();
    story(&alerts);
    alerts.stop(Duration::from_secs(5));
    let text = std::fs::read_to_string(path).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0]["summary"].as_str().unwrap().lines().count(), 1);
}

#[test]
fn alertmanager_is_told_again_and_again_and_the_end_is_now() {
    let listener = Listener::start(|_| 200);
    let mut to = Alertmanager::new(&listener.url(""));
    to.resend_interval = Duration::from_secs(1);
    let receiver = Receiver { name: "am".to_owned(), to: ReceiverKind::Alertmanager(to) };
    let alerts = Alerts::new(at_once(vec![receiver])).unwrap();
    let board = Board::default();
    let now = |seconds: f64| BEGAN + seconds;
    for seconds in [1.0, 2.0] {
        board.publish(TargetState { last_sampled: now(seconds), ..leaking("checkout") });
        alerts.tick(now(seconds), &board);
    }
    eventually("it is sent again", || listener.bodies().len() >= 3);
    assert_eq!(alerts.firing().len(), 1);
    for seconds in [3.0, 4.0] {
        board.publish(TargetState { last_sampled: now(seconds), ..healthy("checkout") });
        alerts.tick(now(seconds), &board);
    }
    alerts.stop(Duration::from_secs(5));
    let told: Vec<Value> = listener.bodies();
    let (first, last) = (&told[0][0], &told[told.len() - 1][0]);
    assert_eq!(listener.paths()[0], "/api/v2/alerts");
    assert_eq!(first["labels"], last["labels"]);
    assert_eq!(first["labels"]["alertname"], "ObserverLeakSuspected");
    assert!(first["annotations"]["summary"].as_str().unwrap().contains("checkout.go:41"));
    assert_eq!(last["endsAt"], "2027-01-15T08:00:03Z");
    assert!(alerts.firing().is_empty());
}

#[test]
fn a_reload_keeps_what_fires_and_tells_the_new_receiver() {
    let (old, new) = (Listener::start(|_| 200), Listener::start(|_| 200));
    let alerts = Alerts::new(at_once(vec![webhook(&old, Template::Json)])).unwrap();
    let board = Board::default();
    for seconds in [1.0, 2.0] {
        board.publish(TargetState { last_sampled: BEGAN + seconds, ..leaking("checkout") });
        alerts.tick(BEGAN + seconds, &board);
    }
    eventually("the old one is told", || old.bodies().len() == 1);
    let mut wrong = at_once(vec![webhook(&new, Template::Json)]);
    wrong.rules.least_confidence = 2.0;
    assert!(alerts.reload(wrong).is_err());
    alerts.reload(at_once(vec![webhook(&new, Template::Json)])).unwrap();
    eventually("the new one is told", || new.bodies().len() == 1);
    assert_eq!(new.bodies()[0]["phase"], "repeat");
    alerts.tick(BEGAN + 3.0, &board);
    assert_eq!(alerts.firing().len(), 1);
    alerts.stop(Duration::from_secs(5));
    assert_eq!(old.bodies().len(), 1);
}

#[test]
fn metrics_tell_how_alerts_fare() {
    let listener = Listener::start(|_| 200);
    let alerts = Alerts::new(at_once(vec![webhook(&listener, Template::Json)])).unwrap();
    let board = Arc::new(Board::default());
    for seconds in [1.0, 2.0] {
        board.publish(TargetState { last_sampled: BEGAN + seconds, ..leaking("checkout") });
        alerts.tick(BEGAN + seconds, &board);
    }
    let metrics = Metrics::new(board);
    metrics.watch_alerts(alerts.counters());
    eventually("it is delivered", || {
        let text = String::from_utf8(metrics.text()).unwrap();
        text.contains("observer_alerts_firing{alert=\"leak\"} 1\n")
            && text.contains("observer_alert_notifications_total{receiver=\"hook\"} 1\n")
    });
}

#[test]
fn wrong_options_are_refused_in_one_line() {
    let hook = |url: &str| {
        let to = ReceiverKind::Webhook(Webhook::new(url, Template::Json));
        at_once(vec![Receiver { name: "hook".to_owned(), to }])
    };
    let template = |text: &str| {
        let to = Webhook::new("http://h/", Template::Custom(text.to_owned()));
        at_once(vec![Receiver { name: "hook".to_owned(), to: ReceiverKind::Webhook(to) }])
    };
    let mut header = Webhook::new("http://h/", Template::Json);
    header.headers.push(("X-Token".to_owned(), "a\r\nb".to_owned()));
    let mut twice = hook("http://h/");
    twice.receivers.push(twice.receivers[0].clone());
    let mut share = hook("http://h/");
    share.rules.limit_share_per_hour = f64::NAN;
    let wrong = [
        (hook("ftp://secret-host/x"), "http://"),
        (hook("not a url"), "no URL"),
        (hook("http://user:secret@h/"), "Authorization"),
        (template("{\"a\": \"{{sumary}}\"}"), "sumary"),
        (twice, "name of its own"),
        (share, "limit_share_per_hour"),
        (at_once(vec![Receiver { name: "hook".to_owned(), to: ReceiverKind::Webhook(header) }]), "X-Token"),
    ];
    for (options, word) in wrong {
        let Err(error) = Alerts::new(options) else { panic!("not refused: {word}") };
        let said = error.to_string();
        assert!(said.contains(word) && said.lines().count() == 1, "{said}");
        assert!(!said.contains("secret"), "{said}");
    }
    let shown = format!("{:?}", hook("https://chat.example/services/T0/secret"));
    assert!(shown.contains("chat.example") && !shown.contains("secret"), "{shown}");
}
