//! One entry of the route table. The router, the OpenAPI document and the permission tests are all made from
//! the same entries, so that none of them can forget a route.

use axum::handler::Handler;
use axum::http::Method;
use axum::routing::{MethodFilter, MethodRouter, on};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use stagely_domain::role::Role;

use crate::App;

/// Describes a type to the OpenAPI document.
pub type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// What a caller must show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permission {
    /// Nothing.
    Public,
    /// An HMAC over the body.
    Signature,
    /// A registry credential as HTTP Basic authentication.
    RegistryCredential,
    /// An API token with this role or a higher one.
    Role(Role),
}

/// What a successful answer looks like.
#[derive(Debug, Clone, Copy)]
pub enum Answer {
    /// A JSON document.
    Json(u16, SchemaOf),
    /// Something else, by media types.
    Other(u16, &'static [&'static str]),
    /// Nothing.
    Empty(u16),
}

/// One route.
pub struct Operation {
    /// The method.
    pub method: Method,
    /// The path, with `{names}`.
    pub path: &'static str,
    /// A unique name, from which clients make function names.
    pub id: &'static str,
    /// One sentence.
    pub summary: &'static str,
    /// What a caller must show.
    pub permission: Permission,
    /// The query's names, as the properties of a type.
    pub query: Option<SchemaOf>,
    /// The JSON body.
    pub body: Option<SchemaOf>,
    /// The answer.
    pub answer: Answer,
    handler: MethodRouter<App>,
}

impl Operation {
    /// A route that `handler` serves.
    #[must_use]
    pub fn new<H, T>(method: Method, path: &'static str, id: &'static str, permission: Permission, handler: H) -> Self
    where
        H: Handler<T, App>,
        T: 'static,
    {
        let filter = MethodFilter::try_from(method.clone()).expect("the table uses standard methods only");
        Self {
            method,
            path,
            id,
            summary: "",
            permission,
            query: None,
            body: None,
            answer: Answer::Empty(204),
            handler: on(filter, handler),
        }
    }

    /// Says what it is for.
    #[must_use]
    pub const fn summary(mut self, summary: &'static str) -> Self {
        self.summary = summary;
        self
    }

    /// It takes a query.
    #[must_use]
    pub fn query<T: JsonSchema>(mut self) -> Self {
        self.query = Some(|generator| generator.root_schema_for::<T>());
        self
    }

    /// It takes a JSON body.
    #[must_use]
    pub fn body<T: JsonSchema>(mut self) -> Self {
        self.body = Some(|generator| generator.subschema_for::<T>());
        self
    }

    /// It answers with a JSON document.
    #[must_use]
    pub fn json<T: JsonSchema>(mut self, status: u16) -> Self {
        self.answer = Answer::Json(status, |generator| generator.subschema_for::<T>());
        self
    }

    /// It answers with something else.
    #[must_use]
    pub const fn other(mut self, status: u16, media_types: &'static [&'static str]) -> Self {
        self.answer = Answer::Other(status, media_types);
        self
    }

    /// The part that serves.
    pub fn into_handler(self) -> (&'static str, MethodRouter<App>) {
        (self.path, self.handler)
    }

    /// Whether a call changes anything.
    #[must_use]
    pub fn is_mutation(&self) -> bool {
        self.method != Method::GET
    }
}
