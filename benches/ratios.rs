//! What supervision costs, as ratios to peers that are measured in the same run.
//!
//! ```text
//! cargo bench --bench ratios -- [--quick] [--rounds N] [FIGURE ...]
//! ```
//!
//! Ours and the peers take turns, round by round, so that a noisy machine is noisy for all of them;
//! a figure is the median of the rounds. Where a figure is a price, it is CPU time, not wall time. A
//! line says what was measured, ours, the peer, the ratio, and the goal with whether it is met:
//!
//! ```text
//! P1 ct/64 ours 812 ns peer ractor 840 ns ratio 0.97 goal 0.80 missed
//! ```
//!
//! Nothing here fails by time: a missed goal is printed, and the exit code is 0 all the same. What the
//! figures mean is in `src/docs/performance.md`.

use std::process::ExitCode;

#[path = "ratios/figures.rs"]
mod figures;

use figures::meter::Options;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some(code) = figures::memory::answer(&arguments) {
        return code;
    }
    match parse(&arguments) {
        Ok((options, chosen)) => {
            // A panic on cue is the load here, not news.
            let usual = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                if panic.payload().downcast_ref::<&str>() != Some(&"cue") {
                    usual(panic);
                }
            }));
            for (_, _, run) in chosen {
                run(&options);
            }
            ExitCode::SUCCESS
        }
        Err(wrong) => {
            eprintln!("error: {wrong}");
            ExitCode::FAILURE
        }
    }
}

fn parse(arguments: &[String]) -> Result<(Options, Vec<figures::Figure>), String> {
    let mut options = Options { rounds: 7, quick: false };
    let mut names = Vec::new();
    let mut left = arguments.iter();
    let mut rounds = None;
    while let Some(argument) = left.next() {
        match argument.as_str() {
            // Cargo says so to every bench.
            "--bench" => {}
            "--quick" => options.quick = true,
            "--rounds" => {
                let value = left.next().map_or("", String::as_str);
                let parsed = value.parse().ok().filter(|rounds| *rounds > 0);
                rounds = Some(
                    parsed.ok_or(format!("--rounds {value}: a whole number from 1 is needed"))?,
                );
            }
            flag if flag.starts_with('-') => {
                return Err(format!("{flag}: only --quick and --rounds N are known"));
            }
            name => names.push(name.to_uppercase()),
        }
    }
    options.rounds = rounds.unwrap_or(if options.quick { 5 } else { options.rounds });
    let unknown = names.iter().find(|name| figures::ALL.iter().all(|figure| figure.0 != **name));
    if let Some(unknown) = unknown {
        let known: Vec<String> =
            figures::ALL.iter().map(|(name, about, _)| format!("  {name:<4} {about}")).collect();
        return Err(format!("{unknown}: there is no such figure; known are\n{}", known.join("\n")));
    }
    let chosen = figures::ALL
        .into_iter()
        .filter(|figure| names.is_empty() || names.iter().any(|name| name == figure.0))
        .collect();
    Ok((options, chosen))
}
