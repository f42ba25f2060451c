//! All routes, each with the role that it takes. There is no other way to add one.

use std::collections::BTreeMap;

use axum::Router;
use axum::http::{Method, StatusCode};
use axum::middleware;
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::{
    ContactBuilder, Content, InfoBuilder, OpenApi, OpenApiBuilder, Ref, Response,
};
use utoipa::{PartialSchema as _, ToSchema as _};
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter};
use utoipa_axum::routes;

use super::problem::{MEDIA_TYPE, Problem};
use super::{Rest, events, forwarding, guard, metrics, operations, page, resources};
use crate::config::Role;

/// The role that each operation takes.
#[derive(Clone, Debug, Default)]
pub(super) struct Roles {
    by_route: BTreeMap<(String, String), Role>,
}

impl Roles {
    /// The role of a method of a route, as axum writes the path. HEAD is GET without a body.
    pub(super) fn of(&self, method: &Method, path: &str) -> Option<Role> {
        let method = if method == Method::HEAD {
            "GET"
        } else {
            method.as_str()
        };
        let key = (path.to_owned(), method.to_owned());
        self.by_route.get(&key).copied()
    }

    /// Whether there is such a route, for any method.
    pub(super) fn knows(&self, path: &str) -> bool {
        self.by_route.keys().any(|(known, _)| known == path)
    }

    /// All of them.
    #[cfg(test)]
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str, Role)> {
        let all = self.by_route.iter();
        all.map(|((path, method), role)| (method.as_str(), path.as_str(), *role))
    }
}

struct Builder {
    router: OpenApiRouter<Rest>,
    roles: Roles,
}

impl Builder {
    /// Adds operations that take `role`.
    fn add(mut self, role: Role, mut routes: UtoipaMethodRouter<Rest>) -> Self {
        for (path, item) in &mut routes.1.paths {
            for (method, operation) in operations_of(item) {
                finish(operation, role);
                let key = (path.clone(), method.to_owned());
                self.roles.by_route.insert(key, role);
            }
        }
        self.router = self.router.routes(routes);
        self
    }
}

fn operations_of(item: &mut PathItem) -> impl Iterator<Item = (&'static str, &mut Operation)> {
    [
        ("GET", item.get.as_mut()),
        ("PUT", item.put.as_mut()),
        ("POST", item.post.as_mut()),
        ("DELETE", item.delete.as_mut()),
        ("PATCH", item.patch.as_mut()),
    ]
    .into_iter()
    .filter_map(|(method, operation)| Some((method, operation?)))
}

/// What all operations have in common.
fn finish(operation: &mut Operation, role: Role) {
    let problem = Content::new(Some(Ref::from_schema_name(Problem::name())));
    let mut response = Response::new("Why it was not done (RFC 9457)");
    response.content.insert(MEDIA_TYPE.into(), problem);
    operation
        .responses
        .responses
        .insert("default".into(), response.into());
    let mut extensions = operation.extensions.take().unwrap_or_default();
    extensions.insert("x-role".into(), role.as_str().into());
    operation.extensions = Some(extensions);
}

/// The routes, their description, and the role of each.
pub(super) fn all() -> (Router<Rest>, OpenApi, Roles) {
    let builder = Builder {
        router: OpenApiRouter::with_openapi(frame()),
        roles: Roles::default(),
    };
    let builder = look(web(builder));
    let builder = operate(builder);
    let Builder { router, roles } = seed(builder);
    let (router, document) = router.split_for_parts();
    (router, document, roles)
}

fn web(builder: Builder) -> Builder {
    builder
        .add(Role::Read, routes!(page::index))
        .add(Role::Read, routes!(page::style))
        .add(Role::Read, routes!(page::app))
        .add(Role::Read, routes!(page::render))
        .add(Role::Read, routes!(page::icon))
}

fn look(builder: Builder) -> Builder {
    builder
        .add(Role::Read, routes!(resources::openapi))
        .add(Role::Read, routes!(resources::status))
        .add(Role::Read, routes!(resources::health))
        .add(Role::Read, routes!(resources::members))
        .add(Role::Read, routes!(resources::view))
        .add(Role::Read, routes!(resources::pnotes))
        .add(Role::Read, routes!(resources::sync))
        .add(Role::Read, routes!(resources::interfaces))
        .add(Role::Read, routes!(resources::connections))
        .add(Role::Read, routes!(resources::sas))
        .add(Role::Read, routes!(resources::sa))
        .add(Role::Read, routes!(resources::history))
        .add(Role::Read, routes!(resources::failovers))
        .add(Role::Read, routes!(resources::explain))
        .add(Role::Read, routes!(resources::stats))
        .add(Role::Read, routes!(resources::checks))
        .add(Role::Read, routes!(events::events))
        .add(Role::Read, routes!(metrics::metrics))
}

fn operate(builder: Builder) -> Builder {
    builder
        .add(Role::Operate, routes!(operations::initiate))
        .add(Role::Operate, routes!(operations::terminate))
        .add(Role::Operate, routes!(operations::rekey))
        .add(Role::Operate, routes!(operations::redirect))
        .add(Role::Operate, routes!(operations::redirect_all))
        .add(Role::Operate, routes!(operations::drain))
        .add(Role::Operate, routes!(operations::undrain))
        .add(Role::Operate, routes!(operations::failover))
        .add(Role::Admin, routes!(operations::bootstrap))
        .add(Role::Operate, routes!(operations::forwarding))
}

/// The paths and methods of the IKE forwarding API.
fn seed(builder: Builder) -> Builder {
    builder
        .add(Role::Read, routes!(forwarding::list))
        .add(Role::Admin, routes!(forwarding::create))
        .add(Role::Admin, routes!(forwarding::change))
        .add(Role::Admin, routes!(forwarding::remove))
        .add(Role::Read, routes!(forwarding::cookie))
        .add(Role::Operate, routes!(forwarding::reserve))
        .add(Role::Operate, routes!(forwarding::release))
        .add(Role::Read, routes!(forwarding::receive_packet))
        .add(Role::Operate, routes!(forwarding::ha_ownership))
        .add(Role::Read, routes!(forwarding::cookie_resolution))
        .add(Role::Read, routes!(forwarding::table_search))
        .add(Role::Read, routes!(forwarding::ownership_check))
        .add(Role::Admin, routes!(forwarding::local_handling))
        .add(Role::Admin, routes!(forwarding::remote_forward))
        .add(Role::Operate, routes!(forwarding::take_ownership))
        .add(Role::Operate, routes!(forwarding::initiate_negotiation))
        .add(Role::Read, routes!(forwarding::table_verification))
        .add(Role::Operate, routes!(forwarding::entry_creation))
        .add(Role::Read, routes!(forwarding::sa_sync))
}

fn frame() -> OpenApi {
    let info = InfoBuilder::new()
        .title("IKEv2/IPsec gateway cluster")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(
            "One member of the cluster. `x-role` of an operation names the role that it takes: \
             read < operate < admin.",
        ))
        .contact(Some(ContactBuilder::new().name(Some("gatewayd")).build()))
        .build();
    let mut document = OpenApiBuilder::new().info(info).build();
    let mut components = utoipa::openapi::Components::new();
    components
        .schemas
        .insert(Problem::name().into_owned(), Problem::schema());
    document.components = Some(components);
    document
}

/// The service: routes behind the guard.
pub(super) fn app(rest: Rest) -> Router {
    let (router, _, _) = all();
    router
        .fallback(|| async {
            Problem::new(StatusCode::NOT_FOUND, "no such resource, see /openapi.json")
        })
        .method_not_allowed_fallback(|| async {
            Problem::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "not with this method; the Allow header names those there are",
            )
        })
        .layer(middleware::from_fn_with_state(rest.clone(), guard::guard))
        .with_state(rest)
}
