module {
  func.func @fake_quant(%x: tensor<?x256x?xf32>, %scale: tensor<256xf32>, %zero_point: tensor<256xi32>) -> (tensor<?x256x?xf32>, tensor<?x256x?xi8>)
      attributes {hacc.entry, hacc.function_kind = #hacc.function_kind<DEVICE>} {
    %_c1 = arith.constant 1.0 : f32
    %_empty2 = tensor.empty() : tensor<256xf32>
    %_fill3 = linalg.fill ins(%_c1 : f32) outs(%_empty2 : tensor<256xf32>) -> tensor<256xf32>
    %_empty4 = tensor.empty() : tensor<256xf32>
    %inverse_scale = linalg.elemwise_binary {fun = #linalg.binary_fn<div>} ins(%_fill3, %scale : tensor<256xf32>, tensor<256xf32>) outs(%_empty4 : tensor<256xf32>) -> tensor<256xf32>
    %_index6 = arith.constant 0 : index
    %_extent7 = tensor.dim %x, %_index6 : tensor<?x256x?xf32>
    %_index8 = arith.constant 2 : index
    %_extent9 = tensor.dim %x, %_index8 : tensor<?x256x?xf32>
    %_empty5 = tensor.empty(%_extent7, %_extent9) : tensor<?x256x?xf32>
    %inverse_scale_all = linalg.broadcast ins(%inverse_scale : tensor<256xf32>) outs(%_empty5 : tensor<?x256x?xf32>) dimensions = [0, 2]
    %_empty10 = tensor.empty(%_extent7, %_extent9) : tensor<?x256x?xf32>
    %multiply = linalg.elemwise_binary {fun = #linalg.binary_fn<mul>} ins(%x, %inverse_scale_all : tensor<?x256x?xf32>, tensor<?x256x?xf32>) outs(%_empty10 : tensor<?x256x?xf32>) -> tensor<?x256x?xf32>
    %_empty11 = tensor.empty(%_extent7, %_extent9) : tensor<?x256x?xf32>
    %round_half_even = hfusion.cast {round_mode = #hfusion.round_mode<rint>} ins(%multiply : tensor<?x256x?xf32>) outs(%_empty11 : tensor<?x256x?xf32>) -> tensor<?x256x?xf32>
    %_empty12 = tensor.empty() : tensor<256xf32>
    %zero_point_f32 = hfusion.cast {round_mode = #hfusion.round_mode<rint>} ins(%zero_point : tensor<256xi32>) outs(%_empty12 : tensor<256xf32>) -> tensor<256xf32>
    %_empty13 = tensor.empty(%_extent7, %_extent9) : tensor<?x256x?xf32>
    %zero_point_f32_all = linalg.broadcast ins(%zero_point_f32 : tensor<256xf32>) outs(%_empty13 : tensor<?x256x?xf32>) dimensions = [0, 2]
    %_empty14 = tensor.empty(%_extent7, %_extent9) : tensor<?x256x?xf32>
    %add = linalg.elemwise_binary {fun = #linalg.binary_fn<add>} ins(%round_half_even, %zero_point_f32_all : tensor<?x256x?xf32>, tensor<?x256x?xf32>) outs(%_empty14 : tensor<?x256x?xf32>) -> tensor<?x256x?xf32>
    %_c16 = arith.constant -128.0 : f32
    %_empty17 = tensor.empty(%_extent7, %_extent9) : tensor<?x256x?xf32>
    %_fill18 = linalg.fill ins(%_c16 : f32) outs(%_empty17 : tensor<?x256x?xf32>) -> tensor<?x256x?xf32>
    %_empty19 = tensor.empty(%_extent7, %_extent9) : tensor<?x256x?xi1>
    %_greater15 = hfusion.compare {compare_fn = #hfusion.compare_fn<vgt>} ins(%add, %_fill18 : tensor<?x256x?xf32>, tensor<?x256x?xf32>) outs(%_empty19 : tensor<?x256x?xi1>) -> tensor<?x256x?xi1>
    %_empty20 = tensor.empty(%_extent7, %_extent9) : tensor<?x256x?xf32>
    %_fill21 = linalg.fill ins(%_c16 : f32) outs(%_empty20 : tensor<?x256x?xf32>) -> tensor<?x256x?xf32>
    %_empty22 = tensor.empty(%_extent7, %_extent9) : tensor<?x256x?xf32>
    %maximum = hfusion.select ins(%_greater15, %add, %_fill21 : tensor<?x256x?xi1>, tensor<?x256x?xf32>, tensor<?x256x?xf32>) outs(%_empty22 : tensor<?x256x?xf32>) -> tensor<?x256x?xf32>
    %_c23 = arith.constant 127.0 : f32
    %_empty24 = tensor.empty(%_extent7, %_extent9) : tensor<?x256x?xf32>
    %_fill25 = linalg.fill ins(%_c23 : f32) outs(%_empty24 : tensor<?x256x?xf32>) -> tensor<?x256x?xf32>
    %_empty26 = tensor.empty(%_extent7, %_extent9) : tensor<?x256x?xf32>
    %minimum = linalg.elemwise_binary {fun = #linalg.binary_fn<min_signed>} ins(%maximum, %_fill25 : tensor<?x256x?xf32>, tensor<?x256x?xf32>) outs(%_empty26 : tensor<?x256x?xf32>) -> tensor<?x256x?xf32>
    %_empty27 = tensor.empty(%_extent7, %_extent9) : tensor<?x256x?xf32>
    %subtract = linalg.elemwise_binary {fun = #linalg.binary_fn<sub>} ins(%minimum, %zero_point_f32_all : tensor<?x256x?xf32>, tensor<?x256x?xf32>) outs(%_empty27 : tensor<?x256x?xf32>) -> tensor<?x256x?xf32>
    %_empty28 = tensor.empty(%_extent7, %_extent9) : tensor<?x256x?xf32>
    %scale_all = linalg.broadcast ins(%scale : tensor<256xf32>) outs(%_empty28 : tensor<?x256x?xf32>) dimensions = [0, 2]
    %_empty29 = tensor.empty(%_extent7, %_extent9) : tensor<?x256x?xf32>
    %out = linalg.elemwise_binary {fun = #linalg.binary_fn<mul>} ins(%subtract, %scale_all : tensor<?x256x?xf32>, tensor<?x256x?xf32>) outs(%_empty29 : tensor<?x256x?xf32>) -> tensor<?x256x?xf32>
    %_empty30 = tensor.empty(%_extent7, %_extent9) : tensor<?x256x?xi1>
    %mask = hfusion.compare {compare_fn = #hfusion.compare_fn<veq>} ins(%add, %minimum : tensor<?x256x?xf32>, tensor<?x256x?xf32>) outs(%_empty30 : tensor<?x256x?xi1>) -> tensor<?x256x?xi1>
    %_empty31 = tensor.empty(%_extent7, %_extent9) : tensor<?x256x?xi8>
    %_mask_int8 = hfusion.cast {round_mode = #hfusion.round_mode<rint>} ins(%mask : tensor<?x256x?xi1>) outs(%_empty31 : tensor<?x256x?xi8>) -> tensor<?x256x?xi8>
    return %out, %_mask_int8 : tensor<?x256x?xf32>, tensor<?x256x?xi8>
  }
}
