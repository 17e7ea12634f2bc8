//! What the JSON documents look like, as JSON Schema (2020-12), made from the types that are written: it cannot drift.
//!
//! Fields are added to a document, never changed, so no schema forbids what it does not know.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema};

use super::documents::{ALERTS_SCHEMA, Alerts, HISTORY_SCHEMA, History, TARGETS_SCHEMA, Targets};
use crate::diagnose::{self, Diagnosis};
use crate::tell::alert::{Notification, message};
use crate::tell::report::{SNAPSHOT_SCHEMA, Snapshot};

/// Of every document, by what its `schema` says.
pub fn schemas() -> &'static BTreeMap<&'static str, Schema> {
    static MADE: OnceLock<BTreeMap<&'static str, Schema>> = OnceLock::new();
    MADE.get_or_init(|| {
        BTreeMap::from([
            (SNAPSHOT_SCHEMA, schema::<Snapshot>()),
            (diagnose::SCHEMA, schema::<Diagnosis>()),
            (HISTORY_SCHEMA, schema::<History>()),
            (TARGETS_SCHEMA, schema::<Targets>()),
            (ALERTS_SCHEMA, schema::<Alerts>()),
            (message::SCHEMA, schema::<Notification>()),
        ])
    })
}

fn schema<T: JsonSchema>() -> Schema {
    SchemaSettings::draft2020_12().for_serialize().into_generator().into_root_schema_for::<T>()
}
