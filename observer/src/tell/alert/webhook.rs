//! A webhook: one POST a notification.

use std::time::Duration;

use super::delivery::{Deliver, Failure};
use super::http::Client;
use super::message::Notification;
use super::options::Webhook;
use super::template::{self, Template};

pub(super) struct ToWebhook {
    client: Client,
    template: Template,
}

impl ToWebhook {
    pub(super) fn new(options: &Webhook) -> Self {
        let client = Client::new(options.url.clone(), options.headers.clone(), options.timeout);
        Self { client, template: options.template.clone() }
    }
}

impl Deliver for ToWebhook {
    fn deliver(&mut self, told: &Notification, left: Option<Duration>) -> Result<(), Failure> {
        self.client.post(&template::body(&self.template, told), left)
    }
}
