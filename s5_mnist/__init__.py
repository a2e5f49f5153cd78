"""A digit classifier you can read: `import s5_mnist as s5`, then `s5.train('fast')` or `s5.predict('digit.png')`.

The names below are imported when they are first used, so importing the package takes no time. Import it before torch, and
threads that wait leave the processor to others where that serves (see the chapter Speed)."""
__version__ = "0.3.0"

import os
import sys
from importlib import import_module


def _native_bf16():
    "Whether the processor has instructions for bf16, asked without torch; False where there is no /proc/cpuinfo"
    try:
        with open('/proc/cpuinfo') as f:
            flags = f.read()
    except OSError:
        return False
    return 'ATEN_CPU_CAPABILITY' not in os.environ and any(name in flags for name in ('avx512_bf16', 'amx_bf16'))


# OpenMP reads this once, when torch is loaded. By default its threads wait by spinning, which starves whatever runs beside them.
# Products in bf16 are too short for threads that have to be woken (the chapter Speed shows both).
if 'torch' not in sys.modules and not _native_bf16():
    os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')

_MODULES = {
    'data': 'DigitData load_mnist generated_data load_data Batches loaders',
    'model': 'Net init_weights summary_table layer_stats',
    'utils': 'set_seed plot_samples plot_accuracy_metrics plot_confusion plot_mistakes plot_reliability '
             'plot_accuracy_by calibration_error wilson_interval',
    'training': 'evaluate fit History Score',
    'augment': 's5_transforms s5_augment random_shift random_elastic shifted_views ManyViews',
    'muon': 'Muon',
    'recipes': 'Recipe RECIPES get_recipe',
    'runs': 'Run train resume load_run load_history load_weights save_weights load_pretrained pretrained_report save_pretrained',
    'preprocessing': 'read_picture preprocess preprocess_stages',
    'inference': 'Prediction predict feature_maps occlusion_map plot_occlusion export_onnx',
    'typicality': 'measure_typicality fit_typicality make_non_digits load_typicality_head',
    'numbers': 'Numbers read_numbers',
    'widget': 'DrawDigit',
    'sweeps': 'sweep read_sweep sweep_table',
    'speed': 'measure_speed',
    'core': 'Table',
    'mnist_files': 'drive_folder',
    'digits': 'generate_digits frame_digit',
    'shift': 'with_drawn',
    'device': 'Autocast ComputeOptions device_name pick_compute_options pick_device pick_precision',
}
_NAMES = {name: module for module, names in _MODULES.items() for name in names.split()}
__all__ = sorted(_NAMES)


def __getattr__(name):
    if name not in _NAMES:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    value = globals()[name] = getattr(import_module(f'{__name__}.{_NAMES[name]}'), name)
    return value


def __dir__():
    return sorted({*globals(), *__all__})
