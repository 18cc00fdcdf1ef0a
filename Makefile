# Every target is a thin call; ARGS passes Hydra overrides on: make unified-grpo ARGS="seed=3"
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
RUN := $(BIN)/python -m
MODEL ?= micro_janus
ARGS ?=
EXTRAS ?= dev
CHECKPOINT ?= outputs/demo/$(MODEL)/grpo/checkpoint
WARMUP ?= outputs/demo/$(MODEL)/warmup/checkpoint
PROMPT ?= draw a red circle
TASKS ?= pope,mme
SUITE ?=
REWARD ?= visual
# How a model draws, where it does so in a way of its own and ARGS says nothing of it.
own = $(if $(wildcard conf/$(1)/$(MODEL).yaml),$(if $(findstring $(1)=,$(ARGS)),,$(1)=$(MODEL)))

# The tests and tools never talk to a hub or a tracker.
export HF_HUB_OFFLINE ?= 1
export WANDB_SILENT ?= true
export TOKENIZERS_PARALLELISM ?= false

# every documented target: none is a file
.PHONY: $(shell sed -nE 's/^([a-z0-9-]+):.*## .*/\1/p' $(MAKEFILE_LIST))

##@ First
help: ## list the targets
	@sed -nE 's/^##@ (.*)/\n\1/p; s/^([a-z0-9-]+):[^#]*## (.*)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 29

setup: $(VENV)/.ready ## virtual environment with pinned versions

# torch goes first, so that nothing else drags a CUDA build in: the pinned version from wherever pip
# finds it if that is a CPU build or there is a GPU, else from PyTorch's CPU index. torchvision, which
# the extra lpips needs, must be built for the same torch, so it comes from the same place.
TORCH_CPU_INDEX ?= https://download.pytorch.org/whl/cpu

$(VENV)/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: $(PYTHON) is older than Python 3.11; use make PYTHON=python3.12"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip setuptools wheel
	@if command -v nvidia-smi >/dev/null 2>&1 || \
	    $(BIN)/pip install --dry-run --no-deps -c constraints.txt torch 2>/dev/null | grep -q '+cpu'; \
	  then index=''; else index='--index-url $(TORCH_CPU_INDEX)'; fi; \
	  echo "installing torch $${index:-from the default index}"; \
	  $(BIN)/pip install --quiet -c constraints.txt torch $(if $(findstring lpips,$(EXTRAS)),torchvision) $$index
	$(BIN)/pip install --quiet --no-build-isolation -c constraints.txt -e '.$(if $(EXTRAS),[$(EXTRAS)])'
	@touch $@

demo: setup ## base -> warm-up -> GRPO -> evaluation on the micro-world, with an HTML report
	$(RUN) unified_rl.pipeline pipeline=demo choose.model=$(MODEL) $(ARGS)

##@ On the micro-world, MODEL=micro_janus, micro_showo or micro_vila_u
base: setup ## make the shipped micro base again: image tokenizer, then pre-training
	$(RUN) unified_rl.pipeline pipeline=base choose.model=$(MODEL) $(ARGS)

warmup: setup ## stage 1: supervised warm-up
	$(RUN) unified_rl.train experiment=unified_grpo/micro_warmup model=$(MODEL) $(ARGS)

unified-grpo: setup ## stage 2: GRPO, from the checkpoint of `make warmup`
	$(RUN) unified_rl.train experiment=unified_grpo/micro_grpo model=$(MODEL) $(call own,behaviour) $(ARGS)

evaluate: setup ## scores of CHECKPOINT on held-out prompts, or SUITE=geneval and other benchmarks
	$(RUN) unified_rl.evaluate model=$(MODEL) $(if $(SUITE),suite=$(SUITE),$(call own,suite)) model.checkpoint=$(CHECKPOINT) $(ARGS)

compare: setup ## results side by side and beside the papers': FILES="base=FOLDER trained=FOLDER"
	$(RUN) unified_rl.compare $(FILES)

# lmms-eval wants an older W&B and protobuf than CI runs; left alone it would also change torch. Its
# torchvision is built for CUDA and breaks transformers beside a CPU build of torch.
setup-lmms: setup ## the extra `lmms`, beside the pinned versions of everything else
	grep -viE '^(wandb|protobuf)==' constraints.txt > $(VENV)/lmms_constraints.txt
	$(BIN)/pip install --quiet --no-build-isolation -c $(VENV)/lmms_constraints.txt -e '.[lmms]'
	@$(BIN)/python -c 'import sys, torch; sys.exit(torch.version.cuda is None)' || \
	  $(BIN)/pip uninstall --quiet --yes torchvision

# What the tasks ask comes from the Hugging Face hub: HF_HUB_OFFLINE=0 where it is not there yet.
lmms: setup ## understanding benchmarks by lmms-eval: TASKS=pope,mme, CHECKPOINT, MODEL
	@$(BIN)/python -c 'import lmms_eval' 2>/dev/null || \
	  { echo "error: lmms-eval is not installed; make setup-lmms"; exit 2; }
	$(RUN) lmms_eval --model unified_rl --model_args model=$(MODEL),checkpoint=$(CHECKPOINT) \
	  --tasks $(TASKS) --batch_size 8 --output_path outputs/lmms --log_samples $(ARGS)

generate: setup ## an answer to PROMPT, as files and a page
	$(RUN) unified_rl.generate model=$(MODEL) $(call own,behaviour) prompt="$(PROMPT)" $(ARGS)

serve: setup ## REWARD over HTTP, for reward=remote of a trainer
	$(RUN) unified_rl.serve reward=$(REWARD) $(ARGS)

sweep-rewards: setup ## the reward ladder r_f, +r_t, +r_v, +process, as a Hydra multirun
	$(RUN) unified_rl.pipeline -m pipeline=reward_ladder choose.rung=format,textual,visual,process start=$(WARMUP) choose.model=$(MODEL) $(ARGS)

corl: setup ## CoRL: unified RL, refined RL of each task, questions merged
	$(RUN) unified_rl.pipeline pipeline=corl choose.model=$(MODEL) $(ARGS)

corl-table3: setup ## CoRL's Table 3, all rows of a seed a job: ARGS="seed=0,1,2"
	$(RUN) unified_rl.pipeline -m pipeline=corl_table3 choose.model=$(MODEL) $(ARGS)

corl-table4: setup ## CoRL's Table 4, rewards for drawings: ARGS="seed=0,1,2"
	$(RUN) unified_rl.pipeline -m pipeline=corl_table4 choose.model=$(MODEL) $(ARGS)

corl-paradigms: setup ## CoRL's Figure 1: separate, merged, cycle and unified RL: ARGS="seed=0,1,2"
	$(RUN) unified_rl.pipeline -m pipeline=corl_paradigms choose.model=$(MODEL) $(ARGS)

# Janus sees pictures in another way than it draws them, so it learns to draw and to answer apart.
apart = $(if $(findstring janus,$(MODEL)),_apart)
unirl unirl-tables unirl-table7: MODEL = micro_showo

unirl: setup ## UniRL: a model improves on its own drawings, by SFT, GRPO and HermesFlow's Pair-DPO
	$(RUN) unified_rl.pipeline pipeline=unirl$(apart) choose.model=$(MODEL) $(ARGS)

unirl-tables: setup ## UniRL's Tables 4 to 6, all rows of a seed a job: ARGS="seed=0,1,2"
	$(RUN) unified_rl.pipeline -m pipeline=unirl$(apart) choose.model=$(MODEL) $(ARGS)

unirl-table7: setup ## UniRL's Table 7: more guidance and steps, from the same checkpoints: ARGS="seed=0,1,2"
	$(RUN) unified_rl.pipeline -m pipeline=unirl_table7 choose.model=$(MODEL) $(ARGS)

##@ At full scale, CHECKPOINT=FOLDER ARGS="..."; what is missing is asked for; ARGS=+debug=dry needs nothing
# The papers' experiments (docs/papers.md); CHECKPOINT has no default here.
train = $(RUN) unified_rl.train experiment=$(1) $(if $(filter command environment,$(firstword $(origin CHECKPOINT))),model.checkpoint=$(CHECKPOINT)) $(ARGS)

train-warmup: setup ## UnifiedGRPO's warm-up of VILA-U-7B
	$(call train,unified_grpo/warmup)

train-unified-grpo: setup ## UnifiedGRPO's GRPO, from the warm-up
	$(call train,unified_grpo/grpo)

train-unified-grpo-qlora: setup ## the same with QLoRA, on one GPU
	$(call train,unified_grpo/grpo_qlora)

train-corl-cold-sft: setup ## CoRL's Table 3, row 1, of Janus-Pro-1B
	$(call train,corl/cold_sft)

train-corl-unified: setup ## CoRL's unified RL of Janus-Pro-1B
	$(call train,corl/unified)

train-corl-released: setup ## the same as CoRL's released code has it
	$(call train,corl/unified_released)

train-corl-refined-t2i: setup ## CoRL's refined RL of drawings, from unified RL
	$(call train,corl/refined_t2i)

train-corl-refined-mc: setup ## ... of multiple choice
	$(call train,corl/refined_mc)

train-corl-refined-oe: setup ## ... of open questions
	$(call train,corl/refined_oe)

train-unirl-sft: setup ## UniRL's SFT of Show-o at 512 px
	$(call train,unirl/showo_sft)

train-unirl-grpo: setup ## UniRL's GRPO of Show-o at 512 px
	$(call train,unirl/showo_grpo)

train-unirl-janus: setup ## UniRL's GRPO of Janus-1.3B
	$(call train,unirl/janus_grpo)

train-hermesflow: setup ## HermesFlow's Pair-DPO of Show-o at 256 px
	$(call train,unirl/hermesflow)

##@ For developers
test: setup ## all tests
	OMP_NUM_THREADS=1 $(RUN) pytest -n 2 --dist worksteal -q $(ARGS)

check: setup ## style, layers and configuration; exactly what CI runs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

format: setup ## rewrite the style
	$(BIN)/ruff check --fix . && $(BIN)/ruff format .

bench: setup ## paired timings of rollout and update
	$(RUN) benchmarks.rollout $(ARGS)

bench-gpu: setup ## everything that needs a CUDA device, at most eight minutes
	$(RUN) benchmarks.gpu $(ARGS)

parity: setup ## our models against recorded tensors of the published ones: FOLDER=path/to/janus
	$(RUN) benchmarks.parity $(FOLDER)

install-matrix: setup ## the core, each extra and all of them in fresh environments: ARGS="--only core,math"
	$(RUN) benchmarks.install_matrix $(ARGS)

constraints: ## pin what the environment holds now
	@{ echo "# Versions that CI runs; made by 'make constraints'."; \
	   $(BIN)/pip freeze --exclude-editable | sed 's/+cpu$$//' | sort -f; } > constraints.txt

clean: ## remove outputs, keep the environment
	rm -rf outputs .pytest_cache .ruff_cache
