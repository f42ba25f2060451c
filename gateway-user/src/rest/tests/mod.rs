//! Every route by the list of routes: roles, errors, and what an answer may hold.

mod metrics;
mod tls;

use std::collections::BTreeSet;

use axum::Router;
use axum::body::Body;
use axum::extract::connect_info::MockConnectInfo;
use axum::http::{Method, Request, StatusCode, header};
use axum::response::Response;
use gateway_ike::secret::SecretBytes;
use serde_json::{Value, json};
use tokio::sync::{broadcast, mpsc};
use tower::ServiceExt;

use super::access::Peer;
use super::problem::MEDIA_TYPE;
use super::{Rest, routes};
use crate::api::Call;
use crate::api::model::{Refusal, RefusalKind, Reply};
use crate::config::{Rest as Config, RestAccess, RestToken, Role};

/// A token that must not come back.
const TOKEN: &str = "planted-token-0123456789abcdef0123";

fn token(name: &str, role: Role) -> RestToken {
    RestToken {
        name: name.into(),
        role,
        secret: SecretBytes::from(format!("{TOKEN}-{name}").as_bytes()),
    }
}

/// The service before an agent that answers everything with `reply`.
fn service(peer: Peer, rate: u32, reply: fn() -> Reply) -> Router {
    let (calls, mut received) = mpsc::channel::<Call>(8);
    tokio::spawn(async move {
        while let Some(call) = received.recv().await {
            let _ = call.reply.send(reply());
        }
    });
    let access = RestAccess {
        group_role: None,
        tokens: vec![
            token("read", Role::Read),
            token("operate", Role::Operate),
            token("admin", Role::Admin),
        ],
        clients: Vec::new(),
    };
    let rest = Rest::new(&config(rate), access, calls, broadcast::Sender::new(4));
    routes::app(rest).layer(MockConnectInfo(peer))
}

fn config(rate: u32) -> Config {
    Config {
        socket: None,
        mode: 0o600,
        group: None,
        tls: None,
        access: RestAccess::default(),
        rate,
        per_sa_metrics: false,
        inject_over_tls: false,
    }
}

fn remote() -> Peer {
    Peer::Remote {
        address: "192.0.2.9:1234".parse().unwrap(),
        certificate: None,
    }
}

fn request(method: &str, path: &str, token: Option<&str>, body: &str) -> Request<Body> {
    let path = path
        .replace("{name}", "site")
        .replace("{local_spi}", "00000000000000ab");
    let mut request = Request::builder().method(method).uri(path);
    if let Some(token) = token {
        let value = format!("Bearer {TOKEN}-{token}");
        request = request.header(header::AUTHORIZATION, value);
    }
    request
        .header(header::CONTENT_TYPE, "application/json")
        .body(Body::from(body.to_owned()))
        .unwrap()
}

async fn text(response: Response) -> String {
    let octets = axum::body::to_bytes(response.into_body(), 1 << 22)
        .await
        .unwrap();
    String::from_utf8(octets.to_vec()).unwrap()
}

async fn problem(response: Response) -> Value {
    let kind = response.headers()[header::CONTENT_TYPE].clone();
    assert_eq!(kind, MEDIA_TYPE);
    let status = response.status();
    let problem: Value = serde_json::from_str(&text(response).await).unwrap();
    assert_eq!(problem["status"], status.as_u16());
    assert_eq!(problem["type"], "about:blank");
    problem
}

fn conflict() -> Reply {
    Reply::Refused(Refusal::new(RefusalKind::Conflict, "not now"))
}

#[test]
fn every_operation_of_the_document_has_a_role_and_none_is_beside_it() {
    let (_, document, roles) = routes::all();
    let document = serde_json::to_value(document).unwrap();
    let mut described = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let role = operation["x-role"].as_str().unwrap().to_owned();
            described.insert((method.to_uppercase(), path.clone(), role));
        }
    }
    let known: BTreeSet<_> = roles
        .iter()
        .map(|(method, path, role)| (method.to_owned(), path.to_owned(), role.as_str().to_owned()))
        .collect();
    assert_eq!(described, known);
    // What changes something is not for readers: one packet is only looked at.
    let readers = roles
        .iter()
        .filter(|(method, _, role)| *method != "GET" && *role == Role::Read);
    let readers: Vec<_> = readers.map(|(_, path, _)| path).collect();
    assert_eq!(readers, ["/api/v1/cluster/ike-forwarding/receive-packet"]);
}

/// Paths and methods of the seed's document.
#[test]
fn the_seed_s_paths_are_there_with_their_methods() {
    let (_, _, roles) = routes::all();
    for (path, methods) in [
        ("packet-tracking", &["GET", "POST", "PUT", "DELETE"][..]),
        ("cookie", &["GET", "POST", "DELETE"]),
        ("receive-packet", &["POST"]),
        ("ha-ownership", &["PUT"]),
        ("cookie-resolution", &["GET"]),
        ("table-search", &["GET"]),
        ("ownership-check", &["GET"]),
        ("local-handling", &["POST"]),
        ("remote-forward", &["POST"]),
        ("take-ownership", &["POST"]),
        ("initiate-negotiation", &["POST"]),
        ("table-verification", &["GET"]),
        ("entry-creation", &["POST"]),
        ("sa-sync", &["GET"]),
    ] {
        let full = format!("/api/v1/cluster/ike-forwarding/{path}");
        let found: BTreeSet<_> = roles
            .iter()
            .filter(|(_, known, _)| *known == full)
            .map(|(method, _, _)| method)
            .collect();
        assert_eq!(found, methods.iter().copied().collect(), "{path}");
    }
}

#[tokio::test]
async fn every_route_enforces_its_role() {
    let (_, _, roles) = routes::all();
    let app = service(remote(), 10_000, conflict);
    for (method, path, wanted) in roles.iter() {
        let ask = |token| app.clone().oneshot(request(method, path, token, "{}"));
        let response = ask(None).await.unwrap();
        assert_eq!(
            response.status(),
            StatusCode::UNAUTHORIZED,
            "{method} {path}"
        );
        problem(response).await;
        for role in [Role::Read, Role::Operate, Role::Admin] {
            let status = ask(Some(role.as_str())).await.unwrap().status();
            let refused = status == StatusCode::FORBIDDEN || status == StatusCode::UNAUTHORIZED;
            let injects = path.ends_with("local-handling") || path.ends_with("remote-forward");
            // Over TLS nobody injects packets; a body of {} may be refused before that.
            if !(injects && role == Role::Admin) {
                assert_eq!(
                    refused,
                    role < wanted,
                    "{method} {path} as {role:?}: {status}"
                );
            }
        }
        if method == "GET" {
            let head = app.clone().oneshot(request("HEAD", path, None, ""));
            assert_eq!(
                head.await.unwrap().status(),
                StatusCode::UNAUTHORIZED,
                "{path}"
            );
        }
    }
}

#[tokio::test]
async fn packets_are_injected_over_the_unix_socket_only() {
    let body = json!({"message": "00", "source": "192.0.2.1"}).to_string();
    let path = "/api/v1/cluster/ike-forwarding/remote-forward";
    let remotely = service(remote(), 10_000, conflict);
    let response = remotely.oneshot(request("POST", path, Some("admin"), &body));
    assert_eq!(response.await.unwrap().status(), StatusCode::FORBIDDEN);
    let locally = service(Peer::Local { uid: 0 }, 10_000, conflict);
    let mut statuses = Vec::new();
    for _ in 0..40 {
        let response = locally.clone().oneshot(request("POST", path, None, &body));
        statuses.push(response.await.unwrap().status());
    }
    assert_eq!(statuses[0], StatusCode::CONFLICT);
    assert!(
        statuses.contains(&StatusCode::TOO_MANY_REQUESTS),
        "{statuses:?}"
    );
}

#[tokio::test]
async fn all_errors_are_problem_details() {
    let app = service(Peer::Local { uid: 0 }, 10_000, conflict);
    let entries = "/api/v1/cluster/ike-forwarding/packet-tracking";
    let long = format!("{{\"to\": \"{}\"}}", "x".repeat(200_000));
    for (method, path, body, status) in [
        ("GET", "/nowhere", "", 404),
        ("PATCH", "/api/v1/status", "", 405),
        ("POST", "/api/v1/failover", "{", 400),
        ("POST", "/api/v1/failover", "{\"to\": 300}", 422),
        ("POST", "/api/v1/failover", "{\"to\": 2, \"more\": 1}", 422),
        ("POST", "/api/v1/redirect", long.as_str(), 413),
        ("GET", "/api/v1/sas?limit=many", "", 422),
        ("GET", "/api/v1/sas?nothing=1", "", 422),
        (
            "POST",
            entries,
            "{\"cookie\": \"a\", \"message_id\": 4294967295}",
            422,
        ),
        ("POST", "/api/v1/drain", "", 409),
        ("GET", "/api/v1/sas/%ff", "", 404),
    ] {
        let response = app
            .clone()
            .oneshot(request(method, path, None, body))
            .await
            .unwrap();
        assert_eq!(response.status().as_u16(), status, "{method} {path}");
        if status == 405 {
            assert!(response.headers().contains_key(header::ALLOW), "{path}");
        }
        let problem = problem(response).await;
        assert!(!problem["detail"].as_str().unwrap().is_empty(), "{path}");
    }
    let plain = Request::post("/api/v1/failover")
        .body(Body::from("{\"to\": 2}"))
        .unwrap();
    let response = app.oneshot(plain).await.unwrap();
    assert_eq!(response.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
    problem(response).await;
}

#[tokio::test]
async fn who_asks_too_often_is_told_when_to_come_back() {
    let app = service(Peer::Local { uid: 0 }, 5, conflict);
    let mut last = None;
    for _ in 0..6 {
        let asked = app
            .clone()
            .oneshot(request("GET", "/api/v1/status", None, ""));
        last = Some(asked.await.unwrap());
    }
    let response = last.unwrap();
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(response.headers()[header::RETRY_AFTER], "1");
    problem(response).await;
}

#[tokio::test]
async fn an_ill_member_is_no_target_for_load_balancers() {
    let ill = || Reply::Ok(json!({"healthy": false, "state": "DOWN", "problems": ["x"]}));
    let app = service(Peer::Local { uid: 0 }, 100, ill);
    let health = app.oneshot(request("GET", "/api/v1/health", None, ""));
    assert_eq!(
        health.await.unwrap().status(),
        StatusCode::SERVICE_UNAVAILABLE
    );
}

#[tokio::test]
async fn the_page_comes_with_its_policy() {
    let app = service(Peer::Local { uid: 0 }, 100, conflict);
    for (path, kind) in [
        ("/", "text/html"),
        ("/page/app.js", "text/javascript"),
        ("/page/render.js", "text/javascript"),
        ("/page/style.css", "text/css"),
        ("/page/icon.svg", "image/svg+xml"),
    ] {
        let asked = app.clone().oneshot(request("GET", path, None, ""));
        let response = asked.await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        let value = |name: &str| response.headers()[name].to_str().unwrap();
        assert!(value("content-type").starts_with(kind), "{path}");
        assert_eq!(value("x-content-type-options"), "nosniff", "{path}");
        let policy = value("content-security-policy");
        assert!(policy.starts_with("default-src 'none';"), "{policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
        if path == "/" {
            // Whatever the page names is there.
            let page = text(response).await;
            for named in page.split("=\"/page/").skip(1) {
                let path = format!("/page/{}", named.split('"').next().unwrap());
                let asked = app.clone().oneshot(request("GET", &path, None, ""));
                assert_eq!(asked.await.unwrap().status(), StatusCode::OK, "{path}");
            }
        }
    }
}

#[tokio::test]
async fn other_pages_in_the_browser_change_nothing() {
    let app = service(Peer::Local { uid: 0 }, 100, conflict);
    let drain = |origin: &str, host: &str| {
        let mut asked = request("POST", "/api/v1/drain", None, "");
        for (name, value) in [(header::ORIGIN, origin), (header::HOST, host)] {
            asked.headers_mut().insert(name, value.parse().unwrap());
        }
        app.clone().oneshot(asked)
    };
    for (origin, host, status) in [
        (
            "http://localhost:8080",
            "localhost:8080",
            StatusCode::CONFLICT,
        ),
        (
            "http://evil.example",
            "localhost:8080",
            StatusCode::FORBIDDEN,
        ),
        ("null", "localhost:8080", StatusCode::FORBIDDEN),
        (
            "http://evil.example:8080",
            "evil.example:8080",
            StatusCode::MISDIRECTED_REQUEST,
        ),
    ] {
        let response = drain(origin, host).await.unwrap();
        assert_eq!(response.status(), status, "{origin} {host}");
    }
}

#[tokio::test]
async fn tokens_come_back_in_no_answer() {
    let (_, _, roles) = routes::all();
    let app = service(remote(), 10_000, conflict);
    for (method, path, _) in roles
        .iter()
        .filter(|(_, path, _)| !path.ends_with("/events"))
    {
        let method: Method = method.parse().unwrap();
        for body in ["{}", "{", TOKEN] {
            let asked = request(method.as_str(), path, Some("admin"), body);
            let response = app.clone().oneshot(asked).await.unwrap();
            let headers = format!("{:?}", response.headers());
            assert!(!headers.contains(TOKEN), "{path}: {headers}");
            let answer = text(response).await;
            assert!(!answer.contains(TOKEN), "{path}: {answer}");
        }
    }
    let debug = format!("{:?}", token("x", Role::Read));
    assert!(!debug.contains(TOKEN), "{debug}");
}

#[tokio::test]
async fn events_are_told_as_they_come() {
    let (calls, _received) = mpsc::channel::<Call>(1);
    let events = broadcast::Sender::new(4);
    let rest = Rest::new(&config(100), RestAccess::default(), calls, events.clone());
    let app = routes::app(rest).layer(MockConnectInfo(Peer::Local { uid: 0 }));
    let asked = request("GET", "/api/v1/events", None, "");
    let response = app.oneshot(asked).await.unwrap();
    let kind = response.headers()[header::CONTENT_TYPE]
        .to_str()
        .unwrap()
        .to_owned();
    assert_eq!(kind, "text/event-stream");
    let event = crate::api::event::ApiEvent::now(crate::api::event::EventKind::View, "view 7");
    events.send(event).unwrap();
    let mut body = response.into_body().into_data_stream();
    let mut told = Vec::new();
    for _ in 0..2 {
        let next = tokio_stream::StreamExt::next(&mut body).await;
        told.push(String::from_utf8(next.unwrap().unwrap().to_vec()).unwrap());
    }
    assert_eq!(told[0].trim_end(), "retry: 500", "when to come again");
    assert!(told[1].starts_with("event: view\ndata: {"), "{}", told[1]);
    assert!(told[1].contains("\"text\":\"view 7\""), "{}", told[1]);
}

/// Over the Unix socket, too, nobody holds up the others.
#[tokio::test]
async fn the_unix_socket_has_limits() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixStream;

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rest.sock");
    let app = service(Peer::Local { uid: 0 }, 100, || Reply::Ok(json!({})));
    let listener = super::listen::unix(&path, 0o600, None).await.unwrap();
    let limits = super::connection::Limits {
        per_user: 2,
        headers: std::time::Duration::from_millis(300),
        ..Default::default()
    };
    tokio::spawn(super::listen::serve(listener, app, limits));
    let ask = || async {
        let mut stream = UnixStream::connect(&path).await.unwrap();
        let asked = b"GET /api/v1/view HTTP/1.1\r\nHost: gw\r\nConnection: close\r\n\r\n";
        let mut said = String::new();
        let _ = stream.write_all(asked).await;
        let _ = stream.read_to_string(&mut said).await;
        said.lines().next().unwrap_or_default().to_owned()
    };
    assert_eq!(ask().await, "HTTP/1.1 200 OK");
    let mut slow = UnixStream::connect(&path).await.unwrap();
    slow.write_all(b"GET / HT").await.unwrap();
    let _other = UnixStream::connect(&path).await.unwrap();
    assert_eq!(ask().await, "", "two of this user are there");
    let mut rest = Vec::new();
    slow.read_to_end(&mut rest).await.unwrap();
    while ask().await.is_empty() {
        tokio::task::yield_now().await;
    }
}
