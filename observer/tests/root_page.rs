//! The page in a real Chromium: it shows, leads, lives and keeps to itself.

#[path = "support/browser.rs"]
mod browser;
#[path = "simulate/cases.rs"]
mod cases;
#[path = "simulate/service.rs"]
mod service;
#[path = "support/shown.rs"]
mod shown;

use browser::Browser;
use service::Service;
use shown::{Site, state};

fn site() -> Site {
    let site = Site::start(|_| {});
    let leak = Service { seconds: 900.0, interval: 3.0, ..cases::story().service }.run(3);
    site.shown.board.publish(state("checkout", &leak));
    site
}

#[test]
#[ignore = "needs root"]
fn pictures_to_look_at() {
    let browser = Browser::start();
    let site = site();
    let root = format!("http://{}", site.address);
    browser.open(&format!("{root}/targets/checkout"));
    browser.until("return document.querySelector('#sentence')");
    println!("{}", browser.screenshot("leak-light").display());
    browser.scheme("dark");
    browser.screenshot("leak-dark");
    browser.scheme("light");
    browser.size(360, 780);
    browser.screenshot("leak-phone");
    println!("{:?}", browser.complaints());
}
