"""The retrieval network of YouTube (Covington et al. 2016): a softmax over items from what the user met and is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf
import tf_keras as keras

from configs.topn import YouTube as YouTubeConfig
from models.base import OwnLoss, OwnValidation, Prepared
from models.interactions import Interactions
from models.layers.deep import Dropout
from models.layers.embedding import FieldEmbedding
from models.layers.hide_ids import HideIds
from models.sequences import NextItemRanker, with_one
from transforms.transformed import TransformedFeature
