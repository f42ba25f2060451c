//! `cargo xtask bench operator`: what watching a gateway costs an operator, and the gateway.
//!
//! One agent with many SAs is asked over its real sockets: the command line, REST, VICI. Beside each
//! question that goes through all SAs peers exchange messages; how long the slowest of them waits for
//! its answer is how long the question kept the agent's loop from its work.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;
use serde_json::Value;

use crate::lab::{
    Asked, CROWD_NETWORK, CROWD_SECRET, Cluster, ClusterSettings, Crowd, GATEWAY_ID, Network, Plan,
    Rest, Run, Spray, Swanctl,
};
use crate::scenario::Context;

/// Addresses that the peers share.
const ADDRESSES: u16 = 200;
/// How often one of the peers asks for a sign of life meanwhile.
const INTERVAL: Duration = Duration::from_millis(5);
/// How often each quick question is asked.
const ROUNDS: usize = 20;
/// What the issue allows for a look at the whole, in milliseconds.
const BUDGET: f64 = 100.0;

/// One question.
#[derive(Debug, Clone, Serialize)]
struct Row {
    /// IKE SAs with a CHILD_SA each.
    sas: usize,
    /// What was asked.
    question: String,
    /// Half of the answers were there within this, client included.
    median_ms: f64,
    /// The slowest one.
    longest_ms: f64,
    /// Octets of an answer.
    octets: usize,
    /// The peers' slowest exchange meanwhile.
    longest_exchange_ms: f64,
    /// What the answer may take.
    #[serde(skip_serializing_if = "Option::is_none")]
    budget_ms: Option<f64>,
}

/// Measures these numbers of SAs, each above the last, prints the rows, and writes them to `out`, one
/// by one.
///
/// # Errors
/// The agent does not answer, or not completely.
pub fn operator(context: &Context, sizes: &[usize], out: &Path) -> Result<()> {
    if let Some(folder) = out.parent() {
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    let mut bench = Bench::start(context)?;
    let mut rows = Vec::new();
    for size in sizes {
        bench.crowd.grow_to(*size)?;
        for (name, budget, rounds, ask) in QUESTIONS {
            let row = bench.row(*size, name, *budget, *rounds, *ask);
            let row = row.with_context(|| format!("{name} with {size} SAs"))?;
            println!("{}", serde_json::to_string(&row)?);
            rows.push(row);
            std::fs::write(out, serde_json::to_string_pretty(&rows)? + "\n")
                .with_context(|| out.display().to_string())?;
        }
    }
    Ok(())
}

/// Asks once; returns the octets of the answer.
type Ask = fn(&Faces, usize) -> Result<usize>;

/// Name, budget, rounds, and how it is asked.
const QUESTIONS: &[(&str, Option<f64>, usize, Ask)] = &[
    ("nothing", None, ROUNDS, |_, _| {
        std::thread::sleep(Duration::from_millis(50));
        Ok(0)
    }),
    ("gatewayctl status", Some(BUDGET), ROUNDS, |faces, sas| {
        let text = faces.gatewayctl(&["status", "--json"])?;
        let status: Value = serde_json::from_str(&text)?;
        ensure!(status["ike_sas"] == sas, "{}", status["ike_sas"]);
        Ok(text.len())
    }),
    ("GET /metrics", Some(BUDGET), ROUNDS, |faces, sas| {
        let answer = faces.rest.call("GET", "/metrics", None)?;
        ensure!(
            answer.text.contains(&format!("\nipsec_ike_sas {sas}\n")),
            "{}",
            answer.text
        );
        Ok(answer.text.len())
    }),
    ("GET /api/v1/status", Some(BUDGET), ROUNDS, |faces, _| {
        Ok(faces.rest.get("/api/v1/status")?.to_string().len())
    }),
    (
        "GET /api/v1/connections",
        Some(BUDGET),
        ROUNDS,
        |faces, sas| {
            let answer = faces.rest.get("/api/v1/connections")?;
            ensure!(answer["connections"][0]["ike_sas"] == sas, "{answer}");
            Ok(answer.to_string().len())
        },
    ),
    (
        "GET /api/v1/sas?limit=200",
        Some(BUDGET),
        ROUNDS,
        |faces, _| {
            let page = faces.rest.get("/api/v1/sas?limit=200")?;
            ensure!(page["ike_sas"].as_array().map(Vec::len) == Some(200));
            Ok(page.to_string().len())
        },
    ),
    (
        "GET /api/v1/sas, a page in the middle",
        Some(BUDGET),
        ROUNDS,
        |faces, _| {
            let page = faces.rest.get("/api/v1/sas?after=8000000000000000")?;
            ensure!(
                page["ike_sas"]
                    .as_array()
                    .is_some_and(|rows| rows.len() == 200)
            );
            Ok(page.to_string().len())
        },
    ),
    ("swanctl --stats", Some(BUDGET), ROUNDS, |faces, _| {
        Ok(faces.swanctl.run(&["--stats"])?.len())
    }),
    ("swanctl --list-conns", Some(BUDGET), ROUNDS, |faces, _| {
        Ok(faces.swanctl.run(&["--list-conns"])?.len())
    }),
    ("all pages of GET /api/v1/sas", None, 1, |faces, sas| {
        let (mut after, mut count, mut octets) = (String::new(), 0, 0);
        loop {
            let page = faces.rest.get(&format!("/api/v1/sas?limit=200{after}"))?;
            count += page["ike_sas"].as_array().map_or(0, Vec::len);
            octets += page.to_string().len();
            match page["next"].as_str() {
                Some(next) => after = format!("&after={next}"),
                None => break,
            }
        }
        ensure!(count == sas, "{count} SAs in all pages");
        Ok(octets)
    }),
    ("gatewayctl sas --json", None, 1, |faces, sas| {
        let text = faces.gatewayctl(&["sas", "--json"])?;
        let answer: Value = serde_json::from_str(&text)?;
        let count = answer["ike_sas"].as_array().map_or(0, Vec::len);
        ensure!(count == sas, "{count} SAs in the list");
        Ok(text.len())
    }),
    ("gatewayctl table --json", None, 1, |faces, sas| {
        let text = faces.gatewayctl(&["table", "--json"])?;
        let answer: Value = serde_json::from_str(&text)?;
        let count = answer["ike_sas"].as_array().map_or(0, Vec::len);
        ensure!(count == sas, "{count} SAs in the table");
        Ok(text.len())
    }),
    ("swanctl --list-sas", None, 1, |faces, sas| {
        let text = faces.swanctl.run(&["--list-sas"])?;
        let count = text.matches("ESTABLISHED").count();
        ensure!(count == sas, "{count} SAs in the list");
        Ok(text.len())
    }),
];

/// What is asked.
struct Faces {
    rest: Rest,
    swanctl: Swanctl,
    gatewayctl: std::path::PathBuf,
    socket: std::path::PathBuf,
}

impl Faces {
    fn gatewayctl(&self, args: &[&str]) -> Result<String> {
        let mut command = std::process::Command::new(&self.gatewayctl);
        command.arg("--socket").arg(&self.socket).args(args);
        let output = command.output().context("cannot start gatewayctl")?;
        ensure!(
            output.status.success(),
            "gatewayctl {}: {}",
            args.join(" "),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8(output.stdout)?)
    }
}

/// One agent and its peers.
struct Bench {
    crowd: Crowd,
    faces: Faces,
    _cluster: Cluster,
    _network: Network,
    _run: Run,
}

impl Bench {
    fn start(context: &Context) -> Result<Self> {
        let run = Run::new(&context.logs, "bench-operator")?;
        let plan = Plan {
            members: 1,
            sites: ADDRESSES,
            ..Plan::default()
        };
        let network = Network::new(&run, plan)?;
        let settings = ClusterSettings {
            remote_ts: CROWD_NETWORK.into(),
            ike: "half_open_limit_per_source = 1000\n".into(),
            tables: format!(
                "[rest]\nrate = 10000\n[[secret]]\nids = [\"{GATEWAY_ID}\"]\n\
                 secret = \"{CROWD_SECRET}\"\n"
            ),
            cluster: "boot_alone = true\n".into(),
            // The SAs are recorded: what the kernel's own list of them costs is not measured.
            ..ClusterSettings::usual(0, false)
        };
        let cluster = Cluster::start(&context.binaries, &run, &network, &settings)?;
        network.spray(Spray::Only(1))?;
        let run_dir = network.member(1)?.run_dir();
        let folder = run.log("swanctl.d");
        std::fs::create_dir_all(&folder)?;
        Ok(Self {
            crowd: Crowd::new(&network)?,
            faces: Faces {
                rest: Rest::new(run_dir),
                swanctl: Swanctl::new(run_dir.join("gateway/charon.vici"), folder),
                gatewayctl: context.binaries.join("gatewayctl"),
                socket: run_dir.join("gateway/gateway.sock"),
            },
            _cluster: cluster,
            _network: network,
            _run: run,
        })
    }

    fn row(
        &mut self,
        sas: usize,
        question: &str,
        budget_ms: Option<f64>,
        rounds: usize,
        ask: Ask,
    ) -> Result<Row> {
        let stop = AtomicBool::new(false);
        let (crowd, faces) = (&mut self.crowd, &self.faces);
        let (asked, answers) = std::thread::scope(|scope| {
            let asking = scope.spawn(|| crowd.ask(INTERVAL, &stop));
            let answers = (0..rounds).map(|_| {
                let begun = Instant::now();
                let octets = ask(faces, sas)?;
                Ok((begun.elapsed(), octets))
            });
            let answers: Result<Vec<(Duration, usize)>> = answers.collect();
            stop.store(true, Ordering::Relaxed);
            let asked = asking
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            (asked, answers)
        });
        let (mut answers, asked) = (answers?, asked?);
        let open = asked.iter().filter(|one| one.answered.is_none()).count();
        ensure!(
            open == 0,
            "{open} of {} exchanges got no answer",
            asked.len()
        );
        answers.sort_unstable();
        let longest = answers.last().context("nothing was asked")?;
        Ok(Row {
            sas,
            question: question.into(),
            median_ms: milliseconds(answers[answers.len() / 2].0),
            longest_ms: milliseconds(longest.0),
            octets: longest.1,
            longest_exchange_ms: milliseconds(slowest(&asked)),
            budget_ms,
        })
    }
}

fn slowest(asked: &[Asked]) -> Duration {
    let times = asked
        .iter()
        .filter_map(|one| Some(one.answered?.since(one.sent)));
    times.max().unwrap_or_default()
}

fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e5).round() / 1e2
}
