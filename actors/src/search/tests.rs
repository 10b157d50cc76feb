use mainstay::fault::Class;

use super::*;

fn documents() -> Vec<Document> {
    let texts = [
        ("returns", "Goods can be returned within 30 days, unused."),
        ("refunds", "A refund is paid within 5 days after the return arrived."),
        ("shipping", "Orders are shipped the next day; express shipping costs extra."),
        ("gifts", "Gift cards never expire and cannot be refunded."),
        ("größen", "Schuhe fallen eine Größe kleiner aus."),
    ];
    texts.map(|(id, text)| Document::new(id, text)).to_vec()
}

fn ids(reply: &SearchReply) -> Vec<&str> {
    reply.hits.iter().map(|hit| &*hit.document.id).collect()
}

#[test]
fn words_are_found_where_they_are_and_nowhere_else() {
    let search = ExactSearch::new(&documents());
    let table: [(&str, &[&str]); 6] = [
        ("REFUND", &["refunds"]),
        ("days", &["returns", "refunds"]),
        ("größe", &["größen"]),
        // All words before some, however rare those are.
        ("gift refund days", &["gifts", "refunds", "returns"]),
        ("days within paid", &["refunds", "returns"]),
        ("bicycle", &[]),
    ];
    for (query, expected) in table {
        let reply = search.search(&query.into()).unwrap();
        if query.starts_with("gift") {
            let mut found = ids(&reply);
            found.sort_unstable();
            assert_eq!(found, expected, "{query}");
        } else {
            assert_eq!(ids(&reply), expected, "{query}");
        }
    }
}

#[test]
fn vectors_find_other_forms_of_a_word() {
    let search = VectorSearch::new(&documents()).unwrap();
    for (query, first) in [
        ("returning goods", "returns"),
        ("shipment of an order", "shipping"),
        ("refnud paid", "refunds"),
        ("do gift cards expire?", "gifts"),
        ("Schuhgröße", "größen"),
    ] {
        let reply = search.search(&query.into()).unwrap();
        assert_eq!(ids(&reply).first(), Some(&first), "{query}: {reply:?}");
        assert!(reply.hits.windows(2).all(|pair| pair[0].score >= pair[1].score));
    }
    assert_eq!(search.search(&"xylophone".into()).unwrap().hits, []);
}

#[test]
fn a_document_is_its_own_best_hit() {
    let documents = documents();
    let (vectors, words) = (VectorSearch::new(&documents).unwrap(), ExactSearch::new(&documents));
    for document in &documents {
        let request = SearchRequest::new(&document.text).limit(1);
        let hit = vectors.search(&request).unwrap().hits.remove(0);
        assert_eq!(hit.document, *document);
        assert!((hit.score - 1.0).abs() < 1e-4, "{}", hit.score);
        assert_eq!(ids(&words.search(&request).unwrap()), [&*document.id]);
    }
}

#[test]
fn no_more_hits_than_wanted_and_none_below_the_least_cosine() {
    let search = VectorSearch::new(&documents()).unwrap().least(-1.0);
    let query = SearchRequest::new("refund within days after the return");
    let all = search.search(&query).unwrap().hits;
    assert!(all.len() >= 3, "{all:?}");
    assert_eq!(search.search(&query.clone().limit(2)).unwrap().hits, all[..2]);
    let strict = search.least(all[0].score - 1e-9);
    assert_eq!(strict.search(&query).unwrap().hits, all[..1]);
}

#[test]
fn a_query_without_a_word_and_vectors_that_do_not_fit_are_faults() {
    let documents = documents();
    let fault = |fault: Fault| (fault.class, fault.code.unwrap().into_owned());
    for query in ["", " ?! "] {
        let empty = (Class::InputValidation, "empty_query".to_owned());
        let (vectors, words) =
            (VectorSearch::new(&documents).unwrap(), ExactSearch::new(&documents));
        assert_eq!(fault(vectors.search(&query.into()).unwrap_err()), empty);
        assert_eq!(fault(words.search(&query.into()).unwrap_err()), empty);
    }
    let uneven = VectorSearch::with(&documents, |text| Ok(vec![1.0; text.len()])).unwrap_err();
    assert_eq!(fault(uneven), (Class::Internal, "dimensions".to_owned()));
    let by_case = |text: &str| Ok(vec![1.0; 2 + usize::from(text == "two")]);
    let search = VectorSearch::with(&documents, by_case).unwrap();
    assert_eq!(fault(search.search(&"two".into()).unwrap_err()).1, "dimensions");
}

#[test]
fn a_vector_without_a_direction_is_like_nothing() {
    for odd in [vec![0.0, 0.0], vec![f32::NAN, 1.0], vec![f32::INFINITY, 1.0]] {
        let search = VectorSearch::with(&documents(), move |_| Ok(odd.clone())).unwrap();
        assert_eq!(search.search(&"refund".into()).unwrap().hits, []);
    }
}
