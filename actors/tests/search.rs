//! When the vectors cannot be had, the words still can (S31).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use mainstay::error::CallError;
use mainstay::fault::{Class, Fault};
use mainstay::port::Port;
use mainstay::spec::{GroupSpec, SupervisorSpec};
use mainstay::system::System;
use mainstay_actors::search::{
    Document, ExactSearch, SearchReply, SearchRequest, VectorSearch, hashed_ngrams,
};

type Search = Port<SearchRequest, SearchReply>;

fn documents() -> Vec<Document> {
    let topics =
        ["returns", "refunds", "shipping", "invoices", "gifts", "repairs", "sizes", "colors"];
    let regions = ["Berlin", "Paris", "Rome", "Madrid", "Oslo"];
    let pairs = topics.iter().flat_map(|topic| regions.iter().map(move |region| (topic, region)));
    pairs
        .map(|(topic, region)| {
            let text = format!("How {topic} work for customers in {region}.");
            Document::new(format!("{topic}-{region}"), text)
        })
        .collect()
}

/// A group whose vectors fail as this function says.
async fn desk(fails: impl Fn() -> Result<(), Fault> + Send + Sync + 'static) -> (System, Search) {
    let documents = documents();
    let built = AtomicU32::new(0);
    let count = documents.len() as u32;
    let vectors = VectorSearch::with(&documents, move |text| {
        // The index was built when everything was well.
        if built.fetch_add(1, Ordering::SeqCst) >= count {
            fails()?;
        }
        Ok(hashed_ngrams(text))
    });
    let find = GroupSpec::data("find")
        .member_spec(vectors.unwrap().spec("vectors"))
        .member_spec(ExactSearch::new(&documents).spec("words"));
    let system = System::start(SupervisorSpec::one_for_one("desk").group(find)).await.unwrap();
    let port = system.port("desk/find").unwrap();
    (system, port)
}

#[tokio::test(start_paused = true)]
async fn with_the_vectors_down_every_query_is_answered_by_the_words() {
    let down = Arc::new(AtomicBool::new(false));
    let is_down = Arc::clone(&down);
    let (system, find) = desk(move || match is_down.load(Ordering::SeqCst) {
        true => Err(Fault::model_unavailable("the index is down")),
        false => Ok(()),
    })
    .await;
    let documents = documents();
    let (mut found, mut degraded) = (0, 0);
    for round in 0..5 {
        // Down in two rounds of five, and long enough for the circuit to open.
        down.store(round == 1 || round == 2, Ordering::SeqCst);
        for document in &documents {
            let answer = find.call(SearchRequest::new(&document.text).limit(1)).await.unwrap();
            found += u32::from(answer.value.hits[0].document == *document);
            degraded += u32::from(answer.degraded);
            let by_words = answer.served_by.as_str().ends_with("words");
            assert_eq!(by_words, answer.degraded, "{:?}", answer.served_by);
        }
        // Time for the probes.
        tokio::time::advance(std::time::Duration::from_secs(120)).await;
    }
    let all = 5 * documents.len() as u32;
    assert!(found * 100 >= all * 95, "S31: {found} of {all}");
    assert!(degraded >= 2 * documents.len() as u32, "{degraded}");
    assert!(degraded < all, "the vectors never came back");
    let fates = system.fates();
    assert_eq!((fates.done, fates.failed), (u64::from(all), 0));
}

#[tokio::test(start_paused = true)]
async fn a_query_that_is_wrong_is_not_asked_of_another_index() {
    let (_system, find) = desk(|| Ok(())).await;
    let error = find.call("?!").await.unwrap_err();
    let CallError::RecoveryExhausted { fault, trail, .. } = error else { panic!("{error:?}") };
    assert_eq!((fault.class, fault.code.as_deref()), (Class::InputValidation, Some("empty_query")));
    assert_eq!(trail.iter().count(), 1, "{trail:?}");
}
