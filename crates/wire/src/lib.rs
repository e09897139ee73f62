//! subscribeRepos frames, CAR and DAG-CBOR to lexicon JSON, with every hash checked.
